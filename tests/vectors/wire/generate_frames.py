# Writes frames.json and login.json with nothing of ours: the second opinion on PROTOCOL.md, sections 3 and 4.
# Needs the Python package `cryptography`. Run it in this folder.
import json, struct, hashlib
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives import serialization as s
h=lambda b:b.hex()
u16=lambda n:struct.pack('>H',n); u32=lambda n:struct.pack('>I',n); u64=lambda n:struct.pack('>Q',n)
A=lambda b,n:bytes([b])*n
env=lambda n:bytes((i*7+3)&255 for i in range(n))
good=[];bad=[]
def g(frm,name,hexb,frame): good.append({"name":name,"from":frm,"frame":frame,"hex":h(hexb)})
def b(frm,name,hexb,error): bad.append({"name":name,"from":frm,"error":error,"hex":h(hexb)})
login=b'\x01'+u16(1)+A(0x11,32)+A(0x22,64)
g("client","login",login,{"type":"login","version":1,"mailbox":h(A(0x11,32)),"signature":h(A(0x22,64))})
put=lambda e,ttl=3600:b'\x02'+A(0x33,16)+A(0x11,32)+A(0x44,32)+u32(ttl)+e
pf=lambda e,ttl=3600:{"type":"put","id":h(A(0x33,16)),"mailbox":h(A(0x11,32)),"capability":h(A(0x44,32)),"ttl_seconds":ttl,"envelope":h(e)}
g("client","put_of_the_smallest_envelope",put(env(1024)),pf(env(1024)))
g("client","put_of_no_envelope_which_the_relay_refuses_by_answer",put(b''),pf(b''))
g("client","put_with_a_ttl_which_the_relay_refuses_by_answer",put(b'abc',0xffffffff),pf(b'abc',0xffffffff))
g("client","read",b'\x03',{"type":"read"})
g("client","ack",b'\x04'+u64(258),{"type":"ack","sequence":258})
g("client","ack_of_the_greatest_sequence",b'\x04'+u64(2**64-1),{"type":"ack","sequence":2**64-1})
g("client","allow_at_both_bounds",b'\x05'+A(0x55,32)+u32(10000)+u64(64<<20),{"type":"allow","capability":h(A(0x55,32)),"max_envelopes":10000,"max_bytes":64<<20})
g("client","revoke",b'\x06'+A(0x55,32),{"type":"revoke","capability":h(A(0x55,32))})
g("client","close_mailbox",b'\x07',{"type":"close-mailbox"})
g("relay","challenge",b'\x81'+u16(1)+A(0x66,32),{"type":"challenge","version":1,"nonce":h(A(0x66,32))})
g("relay","welcome",b'\x82'+u16(1)+u32(64),{"type":"welcome","version":1,"window_envelopes":64})
for c,n in((1,"flushed"),(2,"acknowledged")): g("relay","stored_"+n,b'\x83'+A(0x33,16)+bytes([c]),{"type":"stored","id":h(A(0x33,16)),"how":c})
for r in range(1,9): g("relay",f"refused_for_reason_{r}",b'\x84'+A(0x33,16)+bytes([r])+u32(r*100),{"type":"refused","id":h(A(0x33,16)),"reason":r,"retry_after_ms":r*100})
g("relay","deliver",b'\x85'+u64(1)+u64(1700000000000)+env(1024),{"type":"deliver","sequence":1,"received":1700000000000,"envelope":h(env(1024))})
g("relay","displaced",b'\x86',{"type":"displaced"})
for t in(5,6): g("relay",f"done_{t}",b'\x87'+bytes([t])+A(0x55,32),{"type":"done","request":t,"capability":h(A(0x55,32))})
g("relay","done_7",b'\x87\x07'+A(0,32),{"type":"done","request":7,"capability":h(A(0,32))})
g("relay","reading",b'\x88'+u64(12)+u64(3),{"type":"reading","next_sequence":12,"waiting":3})
g("relay","goodbye",b'\x89'+u32(1500),{"type":"goodbye","retry_after_ms":1500})
for frm in("client","relay"):
    b(frm,"empty",b'',"short")
    b(frm,"type_zero",b'\x00',"type")
    b(frm,"type_without_meaning",(b'\x08' if frm=="client" else b'\x8a'),"type")
    b(frm,"frame_of_the_other_side",(b'\x82'+u16(1)+u32(64) if frm=="client" else b'\x03'),"type")
b("client","login_one_byte_short",login[:-1],"short")
b("client","login_one_byte_long",login+b'\0',"left over")
b("client","put_ends_inside_the_ttl",put(b'')[:-1],"short")
b("client","read_with_a_field",b'\x03\x00',"left over")
b("client","ack_of_seven_bytes",b'\x04'+A(1,7),"short")
b("client","ack_of_nine_bytes",b'\x04'+A(1,9),"left over")
b("client","allow_of_too_many_envelopes",b'\x05'+A(0x55,32)+u32(10001)+u64(1),"bounds")
b("client","allow_of_too_many_bytes",b'\x05'+A(0x55,32)+u32(1)+u64((64<<20)+1),"bounds")
b("client","revoke_of_half_a_hash",b'\x06'+A(0x55,16),"short")
b("client","close_mailbox_with_a_field",b'\x07'+A(0,32),"left over")
b("relay","stored_how_zero",b'\x83'+A(0x33,16)+b'\0',"bounds")
b("relay","stored_how_three",b'\x83'+A(0x33,16)+b'\x03',"bounds")
b("relay","refused_for_reason_0",b'\x84'+A(0x33,16)+b'\0'+u32(0),"bounds")
b("relay","refused_for_reason_9",b'\x84'+A(0x33,16)+b'\x09'+u32(0),"bounds")
b("relay","deliver_with_sequence_zero",b'\x85'+u64(0)+u64(1)+env(1024),"bounds")
b("relay","deliver_at_a_time_beyond_2_53",b'\x85'+u64(1)+u64(2**53)+env(1024),"bounds")
b("relay","deliver_of_1023_bytes",b'\x85'+u64(1)+u64(1)+env(1023),"bounds")
b("relay","deliver_of_nothing",b'\x85'+u64(1)+u64(1),"bounds")
b("relay","done_of_a_put",b'\x87\x02'+A(0,32),"bounds")
b("relay","done_of_close_mailbox_naming_a_capability",b'\x87\x07'+A(1,32),"bounds")
b("relay","reading_from_sequence_zero",b'\x88'+u64(0)+u64(0),"bounds")
b("relay","goodbye_one_byte_short",b'\x89\0\0\0',"short")
def dump(path,doc):
    with open(path,'w') as f:
        f.write("{\n")
        keys=list(doc)
        for i,k in enumerate(keys):
            v=doc[k]
            if isinstance(v,list):
                f.write(f'  {json.dumps(k)}: [\n')
                f.write(",\n".join("    "+json.dumps(x) for x in v))
                f.write("\n  ]")
            else: f.write(f'  {json.dumps(k)}: {json.dumps(v)}')
            f.write(",\n" if i<len(keys)-1 else "\n")
        f.write("}\n")
dump('frames.json',{"about":"Frames of PROTOCOL.md section 4. Good ones decode to the fields given and encode to the same bytes; bad ones are refused.","good":good,"bad":bad})

def key(seed):
    k=Ed25519PrivateKey.from_private_bytes(seed); return k,k.public_key().public_bytes(s.Encoding.Raw,s.PublicFormat.Raw)
seed=hashlib.sha256(b"countersign vector mailbox").digest(); k,pub=key(seed)
seed2=hashlib.sha256(b"countersign vector other mailbox").digest(); k2,pub2=key(seed2)
def sb(ver,name,nonce,mb,label=b"countersign/v1 relay login"): return label+b'\0'+u16(ver)+bytes([len(name)])+name+nonce+mb
nonce=hashlib.sha256(b"countersign vector nonce").digest()
lg=[];lb=[]
def entry(name,relays,ver,non,mb,sig,**kw): return dict(name=name,relay_names=relays,version=ver,nonce=h(non),mailbox=h(mb),signature=h(sig),**kw)
def ok(name,relay):
    m=sb(1,relay.encode(),nonce,pub); lg.append(entry(name,[relay],1,nonce,pub,k.sign(m),seed=h(seed),signed=h(m)))
ok("host_alone","relay.example.org"); ok("address_with_port","127.0.0.1:7447"); ok("address_of_version_6","[::1]:7447"); ok("name_of_255_bytes",("a"*60+".")*4+"b"*11)
good_sig=k.sign(sb(1,b"relay.example.org",nonce,pub))
L=2**252+27742317777372353535851937790883648493
def bump(sig): # malleable: S + L
    S=int.from_bytes(sig[32:],'little')+L
    return sig[:32]+S.to_bytes(32,'little')
lb.append(entry("made_for_another_relay",["relay.example.com"],1,nonce,pub,good_sig))
lb.append(entry("made_for_another_port",["relay.example.org:7447"],1,nonce,pub,good_sig))
lb.append(entry("answer_to_an_earlier_challenge",["relay.example.org"],1,hashlib.sha256(nonce).digest(),pub,good_sig))
lb.append(entry("made_for_another_version",["relay.example.org"],2,nonce,pub,good_sig))
lb.append(entry("shown_for_another_mailbox",["relay.example.org"],1,nonce,pub2,good_sig))
lb.append(entry("one_bit_flipped",["relay.example.org"],1,nonce,pub,good_sig[:5]+bytes([good_sig[5]^1])+good_sig[6:]))
lb.append(entry("malleable_s",["relay.example.org"],1,nonce,pub,bump(good_sig)))
lb.append(entry("signature_of_zeros",["relay.example.org"],1,nonce,pub,bytes(64)))
lb.append(entry("small_order_mailbox_that_any_signature_opens",["relay.example.org"],1,nonce,bytes([1])+bytes(31),bytes([1])+bytes(63)))
lb.append(entry("mailbox_that_is_no_point",["relay.example.org"],1,nonce,bytes([2])+bytes(31),good_sig))
lb.append(entry("mailbox_of_zeros",["relay.example.org"],1,nonce,bytes(32),bytes(64)))
lb.append(entry("without_the_label",["relay.example.org"],1,nonce,pub,k.sign(sb(1,b"relay.example.org",nonce,pub)[27:])))
lb.append(entry("under_another_label",["relay.example.org"],1,nonce,pub,k.sign(sb(1,b"relay.example.org",nonce,pub,b"countersign/v1 envelope"))))
lb.append(entry("relay_without_a_name",[],1,nonce,pub,good_sig))
names=[]
def n(url,name): names.append({"url":url,"name":name})
n("ws://127.0.0.1:7447","127.0.0.1:7447"); n("wss://relay.example.org","relay.example.org"); n("wss://relay.example.org:443/","relay.example.org")
n("wss://relay.example.org:80","relay.example.org:80"); n("ws://relay.example.org:80/path?x#y","relay.example.org"); n("ws://relay.example.org:443","relay.example.org:443")
n("WSS://Relay.Example.ORG/","relay.example.org"); n("ws://[::1]:7447","[::1]:7447"); n("ws://[0:0:0:0:0:0:0:1]","[::1]"); n("wss://[2001:DB8::A]:443","[2001:db8::a]"); n("ws://relay.example.org:00080","relay.example.org")
bn=[]
def e(url,err): bn.append({"url":url,"error":err})
e("","scheme");e("relay.example.org","scheme");e("http://relay.example.org","scheme");e("ws:/relay.example.org","scheme")
e("ws://user@relay.example.org","user");e("ws://relay.example.org:80@evil.example","user");e("ws://good.example\\@evil.example","user")
e("ws://","host");e("ws:///path","host");e("ws://:7447","host");e("ws://relay example.org","host");e("ws://relay.example.org\\evil","host");e("ws://rel\u00e4y.example.org","host");e("ws://[::1","host");e("ws://[::1%25lo]","host");e("ws://[::g]","host");e("ws://relay.example.org%2e","host")
e("ws://relay.example.org:","port");e("ws://relay.example.org:0","port");e("ws://relay.example.org:65536","port");e("ws://relay.example.org:+80","port");e("ws://relay.example.org:80:80","port");e("ws://[::1]7447","port")
e("ws://"+"a"*251,"too long")
dump('login.json',{"about":"Logins of PROTOCOL.md section 3: those that a relay of these names accepts for its nonce, those it refuses, and the name by which a URL calls a relay.","good":lg,"bad":lb,"names":names,"bad_names":bn})
