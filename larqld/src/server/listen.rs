//! Sockets to listen on, and who it is that calls.
//!
//! The unix socket trusts the daemon's own user and root, and refuses every other user. A loopback TCP caller
//! has the role `infer`, or what the token allows that it shows; a token that is wrong is refused.

use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use sha2::{Digest as _, Sha256};
use tokio::net::{TcpListener, UnixListener};
use tokio_stream::wrappers::{TcpListenerStream, UnixListenerStream};
use tonic::transport::server::UdsConnectInfo;
use tonic::{Request, Status};

use crate::config::{Config, Token};
use crate::session::{Principal, Role};

/// Bytes of a unix socket address, the closing zero included (`sockaddr_un::sun_path`).
const SOCKET_PATH_MAX: usize = 108;

/// Why the daemon cannot listen.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Something that is not a socket stands where the socket should be.
    #[error("{0} exists and is not a socket; move it away")]
    NotASocket(PathBuf),
    /// The system refused.
    #[error("cannot listen on {address}: {source}")]
    Io {
        /// The path or address.
        address: String,
        /// The system's reason.
        source: io::Error,
    },
}

/// Sockets that are bound and not served yet.
#[derive(Debug)]
pub struct Listeners {
    pub(super) unix: UnixListenerStream,
    pub(super) tcp: Vec<TcpListenerStream>,
    socket: PathBuf,
}

impl Listeners {
    /// Binds the unix socket and the TCP addresses of `config`.
    ///
    /// The caller holds the data directory's lock, so a socket that is already there was left by a
    /// daemon that is gone, and is removed.
    ///
    /// # Errors
    /// [`ListenError`], naming the address.
    pub async fn bind(config: &Config) -> Result<Self, ListenError> {
        let socket = config.socket();
        let unix = bind_unix(&socket)?;
        let mut tcp = Vec::new();
        for address in &config.listen {
            let listener = TcpListener::bind(address)
                .await
                .map_err(|source| ListenError::Io { address: address.to_string(), source })?;
            if let Ok(bound) = listener.local_addr() {
                tracing::info!(address = %bound, "listening");
            }
            tcp.push(TcpListenerStream::new(listener));
        }
        tracing::info!(socket = %socket.display(), "listening");
        Ok(Self { unix: UnixListenerStream::new(unix), tcp, socket })
    }

    /// The unix socket's path.
    pub fn socket(&self) -> &Path {
        &self.socket
    }
}

fn bind_unix(socket: &Path) -> Result<UnixListener, ListenError> {
    let failed = |source| ListenError::Io { address: socket.display().to_string(), source };
    match std::fs::symlink_metadata(socket) {
        Ok(found) if !found.file_type().is_socket() => {
            return Err(ListenError::NotASocket(socket.to_owned()));
        }
        Ok(_) => std::fs::remove_file(socket).map_err(failed)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed(error)),
    }
    let listener = if socket.as_os_str().len() < SOCKET_PATH_MAX {
        UnixListener::bind(socket)
    } else {
        // The address does not fit: reach the directory through a short name for its descriptor.
        let directory = socket.parent().unwrap_or(Path::new("."));
        let open = std::fs::File::open(directory).map_err(failed)?;
        let name = socket.file_name().unwrap_or_default();
        UnixListener::bind(Path::new(&format!("/proc/self/fd/{}", open.as_raw_fd())).join(name))
    }
    .map_err(failed)?;
    std::fs::set_permissions(socket, std::fs::Permissions::from_mode(0o600)).map_err(failed)?;
    Ok(listener)
}

/// Who a caller is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// What it may do.
    pub role: Role,
    /// Who it is.
    pub principal: Principal,
    /// Whether it is the daemon's own user on this machine, who may name any path it can open.
    pub owner: bool,
}

/// Decides who callers are.
#[derive(Debug)]
pub struct Callers {
    tokens: ArcSwap<Vec<Token>>,
    uid: u32,
}

impl Callers {
    /// Callers as `config` knows them.
    pub fn new(config: &Config) -> Self {
        // SAFETY: geteuid has no arguments and cannot fail.
        let uid = unsafe { libc::geteuid() };
        Self { tokens: ArcSwap::from_pointee(config.tokens.clone()), uid }
    }

    /// Replaces the tokens that are known; sessions that are open stay as they are.
    pub fn replace_tokens(&self, tokens: Vec<Token>) {
        self.tokens.store(Arc::new(tokens));
    }

    /// Who sent `request`.
    ///
    /// # Errors
    /// `UNAUTHENTICATED` for another user's process on the unix socket and for a wrong token.
    pub fn identify<T>(&self, request: &Request<T>) -> Result<Caller, Status> {
        if let Some(peer) = request.extensions().get::<UdsConnectInfo>() {
            return match peer.peer_cred {
                Some(found) if found.uid() == self.uid || found.uid() == 0 => Ok(Caller {
                    role: Role::Admin,
                    principal: Principal::Uid(found.uid()),
                    owner: true,
                }),
                Some(found) => Err(Status::unauthenticated(format!(
                    "28000: this socket belongs to uid {}, not {}",
                    self.uid,
                    found.uid()
                ))),
                None => Err(Status::unauthenticated("28000: the peer's user is unknown")),
            };
        }
        let Some(header) = request.metadata().get("authorization") else {
            return Ok(Caller { role: Role::Infer, principal: Principal::Loopback, owner: false });
        };
        let shown =
            header.to_str().ok().and_then(|text| text.strip_prefix("Bearer ")).unwrap_or_default();
        let digest: [u8; 32] = Sha256::digest(shown.as_bytes()).into();
        // Every token is looked at, so that time does not tell which one was close.
        let tokens = self.tokens.load();
        let mut known = None;
        for token in tokens.iter() {
            let differs = token.sha256.iter().zip(&digest).fold(0, |all, (a, b)| all | (a ^ b));
            if differs == 0 {
                known = Some(token);
            }
        }
        known
            .map(|token| Caller {
                role: token.role,
                principal: Principal::Token(token.name.as_str().into()),
                owner: false,
            })
            .ok_or_else(|| Status::unauthenticated("28000: the token is not known"))
    }
}
