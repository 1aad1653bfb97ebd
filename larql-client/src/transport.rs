//! Opens the HTTP/2 connection that gRPC travels on: unix sockets and TCP.
//!
//! A unix socket address holds 107 bytes of path. A longer one is reached through its directory:
//! the directory is opened, and the socket named `/proc/self/fd/N/larqld.sock`, which is short.

use std::error::Error as _;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint, Uri};

use crate::error::ConnectError;
use crate::target::Target;

/// The longest path that `sockaddr_un` holds, in bytes, its closing NUL not counted.
const SOCKET_PATH_BYTES_MAX: usize = 107;
/// What one stream may have in flight, in bytes: beyond it a slow reader slows the daemon down.
const STREAM_WINDOW_BYTES: u32 = 1 << 20;
/// What all streams of a connection may have in flight, in bytes.
const CONNECTION_WINDOW_BYTES: u32 = 4 << 20;

/// Connects to `target` and speaks HTTP/2 there; the handshake of larqld comes later.
pub(crate) async fn connect(target: &Target, timeout: Duration) -> Result<Channel, ConnectError> {
    let endpoint = match target {
        // The authority is never looked up; a unix socket has none.
        Target::Unix(_) => Endpoint::from_static("http://larqld.localhost"),
        Target::Grpc { host, port } => {
            let host = if host.contains(':') { format!("[{host}]") } else { host.clone() };
            Endpoint::from_shared(format!("http://{host}:{port}"))
                .map_err(|error| unreachable(target, &error))?
        }
    };
    let endpoint = endpoint
        .connect_timeout(timeout)
        .tcp_nodelay(true)
        .tcp_keepalive(Some(Duration::from_secs(30)))
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES);
    let connected = match target {
        Target::Unix(path) => {
            let path = path.clone();
            let connector = tower::service_fn(move |_: Uri| {
                let path = path.clone();
                async move { connect_unix(&path).await.map(TokioIo::new) }
            });
            endpoint.connect_with_connector(connector).await
        }
        Target::Grpc { .. } => endpoint.connect().await,
    };
    connected.map_err(|error| unreachable(target, &error))
}

/// Connects to the socket at `path`, however long its path is.
///
/// # Errors
/// What the system says; `NotFound` and `ConnectionRefused` mean that nobody listens.
pub(crate) async fn connect_unix(path: &Path) -> io::Result<UnixStream> {
    if path.as_os_str().as_bytes().len() <= SOCKET_PATH_BYTES_MAX {
        return UnixStream::connect(path).await;
    }
    let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "no socket is named"));
    };
    let directory = open_directory(directory)?;
    let short: PathBuf =
        [format!("/proc/self/fd/{}", directory.as_raw_fd()).as_ref(), name].iter().collect();
    UnixStream::connect(short).await
}

/// Opens a directory only to name what lies in it.
fn open_directory(path: &Path) -> io::Result<File> {
    File::options().read(true).custom_flags(libc::O_PATH | libc::O_DIRECTORY).open(path)
}

fn unreachable(target: &Target, error: &tonic::transport::Error) -> ConnectError {
    let mut innermost = error.to_string();
    let mut nobody_listens = false;
    let mut cause = error.source();
    while let Some(error) = cause {
        innermost = error.to_string();
        if let Some(error) = error.downcast_ref::<io::Error>() {
            nobody_listens |=
                matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused);
        }
        cause = error.source();
    }
    ConnectError::Unreachable { target: target.to_string(), reason: innermost, nobody_listens }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_socket_whose_path_is_too_long_for_an_address_is_reached() {
        let directory = tempfile::tempdir().unwrap();
        let deep = directory.path().join("d".repeat(120)).join("run");
        std::fs::create_dir_all(&deep).unwrap();
        let opened = open_directory(&deep).unwrap();
        let short = format!("/proc/self/fd/{}/larqld.sock", opened.as_raw_fd());
        let listener = std::os::unix::net::UnixListener::bind(short).unwrap();
        connect_unix(&deep.join("larqld.sock")).await.unwrap();
        listener.accept().unwrap();
    }

    #[tokio::test]
    async fn a_missing_and_a_stale_socket_mean_that_nobody_listens() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("larqld.sock");
        let target = Target::Unix(path.clone());
        let missing = connect(&target, Duration::from_secs(5)).await.unwrap_err();
        assert!(missing.nobody_listens(), "{missing}");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let stale = connect(&target, Duration::from_secs(5)).await.unwrap_err();
        assert!(stale.nobody_listens(), "{stale}");
    }
}
