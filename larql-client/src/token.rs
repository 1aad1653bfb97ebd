//! The bearer token that a caller shows: read from a file of its owner's, never from an argument.

use std::fmt;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// Bytes that a token may have.
const TOKEN_BYTES_MAX: u64 = 4096;

/// A token; it is in no message and no log.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

/// Why a token file was refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TokenError {
    /// It cannot be read.
    #[error("cannot read the token file {}: {source}", .path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Others can read it too.
    #[error("{} is open to others than its owner; chmod 600 it", .path.display())]
    NotPrivate {
        /// The file.
        path: PathBuf,
    },
    /// What it holds is no token.
    #[error("{} holds no token: one line of printable ASCII without spaces is expected", .path.display())]
    NotAToken {
        /// The file.
        path: PathBuf,
    },
}

impl Token {
    /// Reads the token in a file.
    ///
    /// # Errors
    /// A file that is not regular, not its owner's alone, or holds something else than one token.
    pub fn read(path: &Path) -> Result<Token, TokenError> {
        let unreadable = |source| TokenError::Unreadable { path: path.to_path_buf(), source };
        // A FIFO must not keep us waiting.
        let file = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path);
        let file = file.map_err(unreadable)?;
        let metadata = file.metadata().map_err(unreadable)?;
        if !metadata.is_file() {
            return Err(unreadable(io::Error::new(
                io::ErrorKind::InvalidInput,
                "it is not a regular file",
            )));
        }
        if metadata.mode() & 0o077 != 0 {
            return Err(TokenError::NotPrivate { path: path.to_path_buf() });
        }
        let mut text = String::new();
        file.take(TOKEN_BYTES_MAX + 1).read_to_string(&mut text).map_err(unreadable)?;
        let token = text.trim_end_matches(['\n', '\r']);
        let fits = !token.is_empty() && token.len() as u64 <= TOKEN_BYTES_MAX;
        if fits && token.bytes().all(|byte| byte.is_ascii_graphic()) {
            Ok(Token(token.to_owned()))
        } else {
            Err(TokenError::NotAToken { path: path.to_path_buf() })
        }
    }

    /// The token itself, for the header that it goes into.
    pub(crate) fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Token(…)")
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn read(content: &str, mode: u32) -> Result<Token, TokenError> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token");
        std::fs::write(&path, content).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        Token::read(&path)
    }

    #[test]
    fn a_token_is_one_line_of_a_private_file() {
        assert_eq!(read("s3cret-\u{7e}\n", 0o600).unwrap().expose(), "s3cret-~");
        assert!(matches!(read("s3cret", 0o640), Err(TokenError::NotPrivate { .. })));
        for content in ["", "\n", "a b", "a\nb", "ä", &"x".repeat(4097)] {
            assert!(
                matches!(read(content, 0o600), Err(TokenError::NotAToken { .. })),
                "{content:?}"
            );
        }
    }

    #[test]
    fn what_is_no_regular_file_holds_no_token() {
        assert!(matches!(Token::read(Path::new("/dev/zero")), Err(TokenError::Unreadable { .. })));
        assert!(matches!(
            Token::read(Path::new("/nowhere/token")),
            Err(TokenError::Unreadable { .. })
        ));
    }

    #[test]
    fn a_token_shows_nothing_of_itself() {
        assert!(!format!("{:?}", read("s3cret", 0o600).unwrap()).contains("s3cret"));
    }
}
