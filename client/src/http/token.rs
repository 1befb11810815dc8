//! The token of the HTTP door: made on first use, kept in the gate's home where only its user can read it, and never in an argument, an
//! environment or an address (abuse cases J08 and J12).

use rand_core::{OsRng, RngCore};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::HttpError;
use crate::home::{Home, HomeError};

/// Its file in the gate's home.
const FILE: &str = "http-token";

/// Random bytes in it; in hex in the file, as in the header.
const BYTES: usize = 32;

/// What a program on this machine must know to ask. No `Debug`: it is a secret.
pub struct Token(Zeroizing<String>);

impl Token {
    /// The token of this home, made if there is none.
    ///
    /// # Errors
    /// [`HttpError::Home`] if the file can't be read safely; [`HttpError::Token`] if it holds something else.
    pub fn of(home: &Home) -> Result<Self, HttpError> {
        match home.read_secret(FILE) {
            Ok(bytes) => {
                let broken = || HttpError::Token(home.path().join(FILE));
                let text = std::str::from_utf8(&bytes).map_err(|_| broken())?.trim_end();
                let hex = text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
                if text.len() != 2 * BYTES || !hex {
                    return Err(broken());
                }
                Ok(Self(Zeroizing::new(text.to_owned())))
            }
            Err(HomeError::NoSecret { .. }) => {
                let token = Self::draw();
                home.write_secret(FILE, token.0.as_bytes())?;
                Ok(token)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Where it is kept.
    pub fn path(home: &Home) -> std::path::PathBuf {
        home.path().join(FILE)
    }

    fn draw() -> Self {
        let mut bytes = Zeroizing::new([0; BYTES]);
        OsRng.fill_bytes(bytes.as_mut());
        let digit = |nibble: u8| char::from_digit(u32::from(nibble), 16);
        let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]).filter_map(digit);
        // Room for all of it at once: a string that grows leaves copies behind.
        let mut text = Zeroizing::new(String::with_capacity(2 * BYTES));
        text.extend(digits);
        Self(text)
    }

    /// Whether this is it. Takes as long for a nearly right one as for a wrong one.
    pub(super) fn is(&self, offered: &[u8]) -> bool {
        self.0.as_bytes().ct_eq(offered).into()
    }

    #[cfg(test)]
    pub(super) fn reveal(&self) -> String {
        self.0.to_string()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use super::*;

    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn it_is_made_once_and_only_its_user_reads_it() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::create(Some(folder.path().join("gate"))).unwrap();
        let token = Token::of(&home).unwrap();
        assert_eq!(token.reveal().len(), 64);
        assert!(Token::of(&home).unwrap().is(token.reveal().as_bytes()));
        let path = Token::path(&home);
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);

        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o644)).unwrap();
        assert!(matches!(Token::of(&home), Err(HttpError::Home(HomeError::Open { .. }))));
    }

    #[test]
    fn a_file_with_anything_else_opens_no_door() {
        let folder = tempfile::tempdir().unwrap();
        for (number, text) in ["", "secret", &"A".repeat(64), &"a".repeat(63)].into_iter().enumerate() {
            let home = Home::create(Some(folder.path().join(number.to_string()))).unwrap();
            home.write_secret(FILE, text.as_bytes()).unwrap();
            assert!(matches!(Token::of(&home), Err(HttpError::Token(_))), "{text}");
        }
    }
}
