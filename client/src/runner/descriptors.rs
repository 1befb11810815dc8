//! Open files on their way from the gate to the launcher: over their socket, so that no other program that starts meanwhile inherits them.
//!
//! Deliberately not here: which files (`bind`), and everything that is said in words (`launcher`).

use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::BorrowedFd;
use std::os::unix::net::UnixStream;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    recvmsg, sendmsg,
};

/// Directory, executable, interpreter, standard input.
const MOST: usize = 4;
/// Descriptors travel with a byte, or they don't.
const CARRIER: u8 = b'f';

/// Sends them as the first thing on a fresh socket: it never blocks.
pub(super) fn send(socket: &UnixStream, files: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !files.is_empty() && !control.push(SendAncillaryMessage::ScmRights(files)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    sendmsg(socket, &[IoSlice::new(&[CARRIER])], &mut control, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// Takes them; each is closed by `exec`.
pub(super) fn receive(socket: &UnixStream) -> io::Result<Vec<File>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    let received = recvmsg(
        socket,
        &mut [IoSliceMut::new(&mut byte)],
        &mut control,
        RecvFlags::CMSG_CLOEXEC,
    )?;
    if (received.bytes, byte) != (1, [CARRIER]) {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut files = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(descriptors) = message {
            files.extend(descriptors.map(File::from));
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn files_arrive_in_their_order() {
        let (one, two) = UnixStream::pair().unwrap();
        let files: Vec<_> = (0..MOST as u64)
            .map(|length| {
                let file = tempfile::tempfile().unwrap();
                file.set_len(length).unwrap();
                file
            })
            .collect();
        send(&one, &files.iter().map(AsFd::as_fd).collect::<Vec<_>>()).unwrap();
        let lengths: Vec<_> = receive(&two)
            .unwrap()
            .iter()
            .map(|file| file.metadata().unwrap().len())
            .collect();
        assert_eq!(lengths, [0, 1, 2, 3]);
        send(&one, &[]).unwrap();
        assert!(receive(&two).unwrap().is_empty());
    }
}
