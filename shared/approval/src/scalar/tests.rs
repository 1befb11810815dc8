//! The bounds and the one form of each small value. Not here: the objects that hold them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use super::*;

use proptest::prelude::*;

fn json<T: serde::de::DeserializeOwned>(text: &str) -> Option<T> {
    serde_json::from_str(text).ok()
}

#[test]
fn a_name_is_plain_and_short() {
    for good in ["a", "0", "a.b_c-d", &"x".repeat(64)] {
        assert_eq!(good.parse::<Name>().unwrap().as_str(), good);
    }
    for bad in ["", "A", "-a", ".a", "_a", "a b", "é", "a\n", &"x".repeat(65)] {
        assert_eq!(bad.parse::<Name>(), Err(ScalarError::Name), "{bad:?}");
    }
}

#[test]
fn hex_has_one_form() {
    let text = "0123456789abcdef".repeat(4);
    assert_eq!(text.parse::<Digest>().unwrap().to_string(), text);
    assert_eq!(text.parse::<Digest>().unwrap().short(), "01234567");
    for bad in [
        &text[..63],
        &text[..62],
        &text.to_uppercase(),
        &format!("{text}0"),
        &text.replace('0', "é"),
    ] {
        assert_eq!(bad.parse::<Digest>(), Err(ScalarError::Hex(64)));
    }
}

#[test]
fn the_latest_time_is_the_last() {
    assert_eq!(
        Time::from_millis(LATEST_TIME).unwrap().plus_millis(1).millis(),
        LATEST_TIME
    );
    assert_eq!(Time::from_millis(LATEST_TIME + 1), Err(ScalarError::Time));
    assert_eq!(json::<Time>("9007199254740991").map(Time::millis), Some(LATEST_TIME));
    for bad in ["9007199254740992", "-1", "1.0", "1e3", "\"1\"", "null"] {
        assert_eq!(json::<Time>(bad), None, "{bad}");
    }
}

#[test]
fn text_is_counted_in_bytes_and_cut_between_characters() {
    assert!(Text::<4>::new("éé").is_ok());
    assert_eq!(Text::<4>::new("ééa"), Err(ScalarError::Text(4)));
    assert_eq!(Text::<3>::cut("éé").as_untrusted(), "é");
    assert_eq!(Text::<4>::cut("éé").as_untrusted(), "éé");
    assert_eq!(json::<Text<2>>("\"abc\""), None);
}

#[test]
fn a_leaf_key_is_32_bytes_in_canonical_base64() {
    let key = LeafKey([0xfb; 32]);
    let text = key.to_string();
    assert_eq!(text.parse(), Ok(key));
    for bad in [
        text.trim_end_matches('=').to_owned(),
        text.replace("+w==", "+x=="),
        text.replace('+', "-"),
        "AAAA".into(),
    ] {
        assert!(bad == text || bad.parse::<LeafKey>().is_err(), "{bad}");
    }
    assert!(STANDARD.encode([0; 31]).parse::<LeafKey>().is_err());
}

#[test]
fn a_relay_url_is_printable_and_bounded() {
    assert!("wss://relay.example:8443".parse::<RelayUrl>().is_ok());
    for bad in ["", "wss://a b", "wss://é", "wss://a\x1b", &"x".repeat(256)] {
        assert!(bad.parse::<RelayUrl>().is_err());
    }
}

#[test]
fn a_byte_string_has_one_form_and_no_zero_byte() {
    assert_eq!(json::<ByteString>(r#""a b""#).unwrap().as_bytes(), b"a b");
    assert_eq!(
        json::<ByteString>(r#"{"base64":"//4="}"#).unwrap().as_bytes(),
        b"\xff\xfe"
    );
    for bad in [
        r#""a\u0000""#,
        r#"{"base64":"YWI="}"#,
        r#"{"base64":"/wA="}"#,
        r#"{"base64":"//5="}"#,
        r#"{"base64":"//4"}"#,
        r#"{"base64":"//4=","base64":"//4="}"#,
        r#"{"base64":"//4=","x":1}"#,
        r#"{"base64":""}"#,
        r#"["//4="]"#,
        "{}",
        "1",
        "null",
    ] {
        assert_eq!(json::<ByteString>(bad), None, "{bad}");
    }
}

proptest! {
    #[test]
    fn any_bytes_without_zero_come_back(bytes in proptest::collection::vec(1u8.., 0..64)) {
        let value = ByteString::new(bytes.clone()).unwrap();
        let text = serde_json::to_string(&value).unwrap();
        prop_assert_eq!(text.starts_with('"'), std::str::from_utf8(&bytes).is_ok());
        prop_assert_eq!(json::<ByteString>(&text), Some(value));
    }

    #[test]
    fn any_digest_comes_back(bytes: [u8; 32]) {
        prop_assert_eq!(Digest(bytes).to_string().parse(), Ok(Digest(bytes)));
    }

    #[test]
    fn no_text_makes_them_panic(text: String) {
        let _ = (text.parse::<Digest>(), text.parse::<Id16>(), text.parse::<LeafKey>());
        let _ = (text.parse::<Name>(), text.parse::<RelayUrl>(), Text::<7>::cut(&text));
    }
}
