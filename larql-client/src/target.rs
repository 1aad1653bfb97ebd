//! Where a daemon listens, as a URL.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// The gRPC port of a target that names none.
pub const GRPC_PORT: u16 = 7878;

/// Where a daemon listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// A unix socket: `unix:///run/larqld.sock`.
    Unix(PathBuf),
    /// gRPC over TCP without encryption: `grpc://127.0.0.1:7878`.
    Grpc {
        /// A name, an IPv4 address, or an IPv6 address without its brackets.
        host: String,
        /// The port, 7878 unless given.
        port: u16,
    },
}

/// Why a text is no target.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TargetError {
    /// A transport that this build does not speak.
    #[error("{scheme}:// is not supported yet; use unix:///path or grpc://host:port")]
    NotSupportedYet {
        /// `grpcs` or `quic`.
        scheme: String,
    },
    /// Not a transport at all.
    #[error("{text:?} names no transport; write unix:///path or grpc://host:port")]
    UnknownScheme {
        /// What was given.
        text: String,
    },
    /// `unix://` wants an absolute path.
    #[error("{text:?} has no absolute path; write three slashes: unix:///path")]
    RelativePath {
        /// What was given.
        text: String,
    },
    /// The part after `grpc://` is not a host and a port.
    #[error("{text:?} is not grpc://host:port: {reason}")]
    BadAddress {
        /// What was given.
        text: String,
        /// What is wrong with it.
        reason: &'static str,
    },
}

impl FromStr for Target {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Target, TargetError> {
        let Some((scheme, rest)) = text.split_once("://") else {
            return Err(TargetError::UnknownScheme { text: text.to_owned() });
        };
        match scheme {
            "unix" if rest.starts_with('/') && !rest.contains('\0') => {
                Ok(Target::Unix(PathBuf::from(rest)))
            }
            "unix" => Err(TargetError::RelativePath { text: text.to_owned() }),
            "grpc" => grpc(text, rest),
            "grpcs" | "quic" => Err(TargetError::NotSupportedYet { scheme: scheme.to_owned() }),
            _ => Err(TargetError::UnknownScheme { text: text.to_owned() }),
        }
    }
}

fn grpc(text: &str, rest: &str) -> Result<Target, TargetError> {
    let bad = |reason| TargetError::BadAddress { text: text.to_owned(), reason };
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    let (host, port) = match rest.strip_prefix('[') {
        Some(bracketed) => {
            let (host, port) = bracketed.split_once(']').ok_or_else(|| bad("a [ is not closed"))?;
            host.parse::<std::net::Ipv6Addr>().map_err(|_| bad("not an IPv6 address"))?;
            match port {
                "" => (host, None),
                _ => (host, Some(port.strip_prefix(':').ok_or_else(|| bad("a port needs a :"))?)),
            }
        }
        None => match rest.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (rest, None),
        },
    };
    let named = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':');
    if host.is_empty() {
        return Err(bad("the host is missing"));
    }
    if !host.chars().all(named) {
        return Err(bad("a host has letters, digits, dots and hyphens"));
    }
    let port = match port {
        Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => {
            digits.parse().map_err(|_| bad("a port is a number from 1 to 65535"))?
        }
        Some(_) => return Err(bad("a port is a number from 1 to 65535")),
        None => GRPC_PORT,
    };
    if port == 0 {
        return Err(bad("a port is a number from 1 to 65535"));
    }
    Ok(Target::Grpc { host: host.to_owned(), port })
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Unix(path) => write!(f, "unix://{}", path.display()),
            Target::Grpc { host, port } if host.contains(':') => {
                write!(f, "grpc://[{host}]:{port}")
            }
            Target::Grpc { host, port } => write!(f, "grpc://{host}:{port}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_prints_as_it_was_written() {
        for text in ["unix:///run/larqld.sock", "grpc://127.0.0.1:7878", "grpc://[::1]:9"] {
            assert_eq!(text.parse::<Target>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn a_grpc_target_without_a_port_takes_7878() {
        let expected = Target::Grpc { host: "localhost".into(), port: 7878 };
        assert_eq!("grpc://localhost".parse(), Ok(expected.clone()));
        assert_eq!("grpc://localhost/".parse(), Ok(expected));
    }

    #[test]
    fn transports_of_later_releases_say_so() {
        for scheme in ["grpcs", "quic"] {
            let error = format!("{scheme}://h:1").parse::<Target>().unwrap_err();
            assert!(error.to_string().contains("not supported yet"), "{error}");
        }
    }

    #[test]
    fn what_is_no_target_is_refused() {
        for text in [
            "",
            "localhost:7878",
            "http://h",
            "unix://relative",
            "unix://",
            "grpc://",
            "grpc://:1",
            "grpc://h:",
            "grpc://h:0",
            "grpc://h:65536",
            "grpc://h:+1",
            "grpc://a@b:1",
            "grpc://[::1",
            "grpc://[zz]:1",
            "grpc://[::1]1",
            "grpc://h/path",
        ] {
            assert!(text.parse::<Target>().is_err(), "{text:?} was accepted");
        }
    }
}
