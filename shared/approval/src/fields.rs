//! Reading and writing the binary fields of PROTOCOL.md 1. Not here: what they mean (`message`, `invite`, `pairing`).

/// The bytes end early, a length is beyond its bound, or bytes are left over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Malformed;

/// Takes fields from the front.
pub(crate) struct Reader<'b>(&'b [u8]);

impl<'b> Reader<'b> {
    pub(crate) fn new(bytes: &'b [u8]) -> Self {
        Self(bytes)
    }

    pub(crate) fn take(&mut self, length: usize) -> Result<&'b [u8], Malformed> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(Malformed)?;
        self.0 = rest;
        Ok(taken)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (taken, rest) = self.0.split_first_chunk().ok_or(Malformed)?;
        self.0 = rest;
        Ok(*taken)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, Malformed> {
        self.array().map(u8::from_be_bytes)
    }

    pub(crate) fn u16(&mut self) -> Result<u16, Malformed> {
        self.array().map(u16::from_be_bytes)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, Malformed> {
        self.array().map(u64::from_be_bytes)
    }

    pub(crate) fn var8(&mut self) -> Result<&'b [u8], Malformed> {
        let length = self.u8()?;
        self.take(length.into())
    }

    pub(crate) fn var16(&mut self) -> Result<&'b [u8], Malformed> {
        let length = self.u16()?;
        self.take(length.into())
    }

    pub(crate) fn var32(&mut self) -> Result<&'b [u8], Malformed> {
        let length = u32::from_be_bytes(self.array()?);
        self.take(usize::try_from(length).map_err(|_| Malformed)?)
    }

    /// Nothing may be left.
    pub(crate) fn end(self) -> Result<(), Malformed> {
        if self.0.is_empty() { Ok(()) } else { Err(Malformed) }
    }
}

/// Puts fields at the end.
#[derive(Default)]
pub(crate) struct Writer(Vec<u8>);

impl Writer {
    pub(crate) fn with_room(bytes: usize) -> Self {
        Self(Vec::with_capacity(bytes))
    }

    pub(crate) fn raw(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.extend_from_slice(bytes);
        self
    }

    pub(crate) fn u8(&mut self, value: u8) -> &mut Self {
        self.raw(&[value])
    }

    pub(crate) fn u16(&mut self, value: u16) -> &mut Self {
        self.raw(&value.to_be_bytes())
    }

    pub(crate) fn u64(&mut self, value: u64) -> &mut Self {
        self.raw(&value.to_be_bytes())
    }

    pub(crate) fn var16(&mut self, bytes: &[u8]) -> Result<&mut Self, Malformed> {
        let length = u16::try_from(bytes.len()).map_err(|_| Malformed)?;
        Ok(self.u16(length).raw(bytes))
    }

    pub(crate) fn var32(&mut self, bytes: &[u8]) -> Result<&mut Self, Malformed> {
        let length = u32::try_from(bytes.len()).map_err(|_| Malformed)?;
        Ok(self.raw(&length.to_be_bytes()).raw(bytes))
    }

    pub(crate) fn written(&self) -> &[u8] {
        &self.0
    }

    pub(crate) fn finish(self) -> Vec<u8> {
        self.0
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use super::*;

    #[test]
    fn fields_come_back_in_their_order() {
        let mut writer = Writer::default();
        writer
            .u8(7)
            .u16(0x0102)
            .u64(9)
            .raw(&[1, 2])
            .var16(b"abc")
            .unwrap()
            .var32(b"")
            .unwrap();
        let bytes = writer.finish();
        let mut reader = Reader::new(&bytes);
        assert_eq!((reader.u8(), reader.u16(), reader.u64()), (Ok(7), Ok(0x0102), Ok(9)));
        assert_eq!(
            (reader.array(), reader.var16(), reader.var32()),
            (Ok([1, 2]), Ok(&b"abc"[..]), Ok(&b""[..]))
        );
        assert_eq!(reader.end(), Ok(()));
    }

    #[test]
    fn short_fields_and_left_over_bytes_are_refused() {
        assert_eq!(Reader::new(&[0, 3, b'a', b'b']).var16(), Err(Malformed));
        assert_eq!(Reader::new(&[0xff, 0xff, 0xff, 0xff]).var32(), Err(Malformed));
        assert_eq!(Reader::new(&[1]).u16(), Err(Malformed));
        assert_eq!(Reader::new(&[2, 1]).var8(), Err(Malformed));
        assert_eq!(Reader::new(&[0]).end(), Err(Malformed));
    }

    #[test]
    fn what_its_length_cannot_say_is_not_written() {
        assert!(Writer::default().var16(&vec![0; 65_535]).is_ok());
        assert!(Writer::default().var16(&vec![0; 65_536]).is_err());
    }
}
