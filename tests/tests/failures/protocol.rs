//! Clients that do not keep to the protocol, and callers that may not do what they ask.

use super::*;

type SessionClient = wire::session_client::SessionClient<tonic::transport::Channel>;

async fn connect(daemon: &Daemon) -> SessionClient {
    let endpoint = format!("unix://{}", daemon.socket().display());
    let channel =
        tonic::transport::Endpoint::try_from(endpoint).expect("an address").connect().await;
    SessionClient::new(channel.expect("a connection"))
}

/// Opens a stream and sends those frames.
async fn converse(
    client: &mut SessionClient,
    frames: Vec<Option<client_frame::Frame>>,
) -> (mpsc::UnboundedSender<wire::ClientFrame>, tonic::Streaming<wire::ServerFrame>) {
    let (sender, receiver) = mpsc::unbounded_channel();
    for frame in frames {
        sender.send(wire::ClientFrame { frame }).expect("room");
    }
    let outgoing = tokio_stream::wrappers::UnboundedReceiverStream::new(receiver);
    let answer = client.open(outgoing).await.expect("a stream").into_inner();
    (sender, answer)
}

fn hello(version_min: u32, version_max: u32) -> Option<client_frame::Frame> {
    let client = "test".to_owned();
    Some(client_frame::Frame::Hello(wire::Hello { version_min, version_max, client }))
}

fn execute(id: u64, script: &str) -> Option<client_frame::Frame> {
    let script = script.to_owned();
    Some(client_frame::Frame::Execute(wire::Execute { id, script, ..wire::Execute::default() }))
}

/// Reads frames until the stream ends; one of them must be a refusal. What a script had answered
/// before it was stopped may come after it.
async fn refusal(mut frames: tonic::Streaming<wire::ServerFrame>) -> wire::Refused {
    let mut refused = None;
    while let Some(frame) =
        timeout(PATIENCE, frames.message()).await.expect("a frame").expect("a frame")
    {
        if let Some(server_frame::Frame::Refused(found)) = frame.frame {
            refused = Some(found);
        }
    }
    refused.expect("a refusal before the end")
}

#[tokio::test]
async fn a_client_of_another_protocol_version_is_refused_with_both_ranges() {
    let daemon = Daemon::start();
    let mut client = connect(&daemon).await;
    for (oldest, newest) in [(7, 9), (0, 0), (9, 7), (u32::MAX, u32::MAX)] {
        let (_sender, frames) = converse(&mut client, vec![hello(oldest, newest)]).await;
        let refused = refusal(frames).await;
        assert_eq!(refused.code, "08P01");
        let range = format!("{oldest} to {newest}");
        assert!(refused.message.contains(&range), "{}", refused.message);
        assert_eq!((refused.version_min, refused.version_max), (1, 1));
        assert!(!refused.hint.is_empty());
    }
    assert_well(&daemon).await;
}

#[tokio::test]
async fn frames_out_of_order_end_their_session_and_no_other() {
    let daemon = Daemon::start();
    let mut client = connect(&daemon).await;
    let cancel = Some(client_frame::Frame::Cancel(wire::Cancel { id: 1 }));
    for frames in [
        vec![execute(1, "SHOW MOUNTS")],
        vec![cancel],
        vec![None],
        vec![hello(1, 1), None],
        vec![hello(1, 1), hello(1, 1)],
        vec![hello(1, 1), execute(1, "SHOW MOUNTS"), None],
    ] {
        let (_sender, answer) = converse(&mut client, frames.clone()).await;
        let refused = refusal(answer).await;
        assert_eq!(refused.code, "08P01", "{frames:?}");
        assert!(!refused.hint.is_empty());
        assert_well(&daemon).await;
    }
}

#[tokio::test]
async fn a_message_beyond_every_limit_ends_its_session_and_no_other() {
    let daemon = Daemon::start();
    let mut client = connect(&daemon).await;
    let script = "x".repeat(20 << 20);
    let (_sender, mut frames) = converse(&mut client, vec![hello(1, 1), execute(1, &script)]).await;
    let ended = async {
        while let Ok(Some(frame)) = frames.message().await {
            assert!(!matches!(frame.frame, Some(server_frame::Frame::Summary(_))), "{frame:?}");
        }
    };
    timeout(PATIENCE, ended).await.expect("an end");
    assert_well(&daemon).await;
}

#[tokio::test]
async fn bytes_that_are_no_protocol_leave_the_daemon_answering() {
    let (daemon, port) = listening(&[]);
    for bytes in
        [&b""[..], b"GET / HTTP/1.1\r\n\r\n", &[0xff; 70_000], b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"]
    {
        let mut stream = std::net::TcpStream::connect(("127.0.0.1", port)).expect("a connection");
        let _ = stream.write_all(bytes);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let mut stream =
            std::os::unix::net::UnixStream::connect(daemon.socket()).expect("a connection");
        let _ = stream.write_all(bytes);
    }
    assert_well(&daemon).await;
}

/// A daemon that also listens on a loopback port.
fn listening(arguments: &[&str]) -> (Daemon, u16) {
    let daemon = Daemon::start_with(&[&["--listen", "127.0.0.1:0"], arguments].concat());
    let port = port(&daemon);
    (daemon, port)
}

/// The loopback port that the daemon chose.
fn port(daemon: &Daemon) -> u16 {
    let began = Instant::now();
    loop {
        let log = daemon.log();
        // The line is whole when the next one has begun.
        if let Some((_, rest)) = log.split_once("address=127.0.0.1:")
            && let Some((port, _)) = rest.split_once('\n')
        {
            return port.trim().parse().expect("a port");
        }
        assert!(began.elapsed() < PATIENCE, "{log}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[tokio::test]
async fn a_caller_over_tcp_may_infer_and_change_nothing() {
    let (daemon, port) = listening(&[]);
    let path = daemon.data_dir().join("v.vindex");
    daemon.extract(&llama2(), &path, "WITH INFERENCE").await;
    let target = Target::Grpc { host: "127.0.0.1".to_owned(), port };
    let mut client = Client::connect(&target, ConnectOptions::default()).await.expect("a session");
    assert_eq!(client.welcome().role, "infer");
    let path = path.display().to_string();
    for script in [
        format!("EXTRACT MODEL \"{}\" INTO \"{path}2\"", llama2().display()),
        format!("MOUNT \"{path}\" AS w"),
        "UNMOUNT v".to_owned(),
        format!("VERIFY VINDEX \"{path}\""),
        format!("USE \"{path}\""),
        format!("USE MODEL \"{}\"", llama2().display()),
        "USE MODEL \"/etc\"".to_owned(),
    ] {
        let error = client.query(&script, ExecuteOptions::here()).await.expect_err(&script);
        assert_eq!(error.code, "42501", "{script}: {error}");
        assert!(!error.hint.is_empty(), "{script}: {error}");
    }
    let answers = client
        .query("USE \"v\"; DESCRIBE \"a\"; INFER \"a\"; SHOW MOUNTS", ExecuteOptions::here())
        .await;
    let answers = answers.unwrap_or_else(|error| panic!("{error}"));
    assert!(!answers[2].rows.is_empty());
    // Calls that take a path are bound by the same rule.
    let request = LogitsRequest {
        model: llama2().display().to_string(),
        token_ids: vec![1],
        ..LogitsRequest::default()
    };
    let error = client.logits(request).await.expect_err("a refusal");
    assert_call(&error, "42501", &["llama2"]);
    assert_call(&client.unpack_bundled("atlas").await.expect_err("a refusal"), "42501", &["admin"]);
    assert!(!PathBuf::from(format!("{path}2")).exists());
    assert_well(&daemon).await;
}

#[tokio::test]
async fn a_wrong_token_is_refused_and_a_right_one_is_its_role() {
    let own = tempfile::tempdir().expect("a directory");
    // SHA-256 of "open sesame".
    let digest = "41ef4bb0b23661e66301aac36066912dac037827b4ae63a7b1165a5aa93ed4eb";
    let configuration = format!(
        "listen = ['127.0.0.1:0']\n[[tokens]]\nname = 'ali'\nrole = 'admin'\nsha256 = '{digest}'\n"
    );
    fs::write(own.path().join("larqld.toml"), configuration).expect("larqld.toml");
    let daemon = Daemon::start_in(own.path(), &[]);
    let address = format!("http://127.0.0.1:{}", port(&daemon));
    let endpoint = tonic::transport::Endpoint::try_from(address).expect("an address");
    let channel = endpoint.connect().await.expect("a connection");
    for (header, role) in [
        ("Bearer open sesame", Some("admin")),
        ("Bearer open sesami", None),
        ("Bearer ", None),
        ("Basic open sesame", None),
        ("", None),
    ] {
        let header: tonic::metadata::MetadataValue<_> = header.parse().expect("a header");
        let mut client = wire::session_client::SessionClient::with_interceptor(
            channel.clone(),
            move |mut request: tonic::Request<()>| {
                request.metadata_mut().insert("authorization", header.clone());
                Ok(request)
            },
        );
        let frames = tokio_stream::once(wire::ClientFrame { frame: hello(1, 1) });
        match (client.open(frames).await, role) {
            (Ok(answer), Some(role)) => {
                let welcome =
                    answer.into_inner().message().await.expect("a frame").expect("a frame");
                let Some(server_frame::Frame::Welcome(welcome)) = welcome.frame else {
                    panic!("{welcome:?}")
                };
                assert_eq!(welcome.role, role);
            }
            (Err(status), None) => {
                assert_eq!(status.code(), tonic::Code::Unauthenticated, "{status}");
                assert!(status.message().contains("28000"), "{status}");
            }
            (answer, _) => panic!("{answer:?}"),
        }
    }
    assert_well(&daemon).await;
}

#[tokio::test]
async fn a_parameter_is_refused_rather_than_ignored() {
    let daemon = Daemon::start();
    let mut client = daemon.client().await;
    let options = ExecuteOptions { parameters: vec![Value::Integer(1)], ..ExecuteOptions::here() };
    let error = client.query("SHOW MOUNTS", options).await.expect_err("a refusal");
    assert_eq!(error.code, "08P01", "{error}");
    assert!(!error.hint.is_empty(), "{error}");
    let options = ExecuteOptions {
        parameters: vec![Value::Integer(1), Value::Integer(2)],
        ..ExecuteOptions::here()
    };
    let error =
        client.query("SELECT $1; SHOW MOUNTS", options.clone()).await.expect_err("a refusal");
    assert_eq!(error.code, "08P01", "{error}");
    client.query("SELECT $1; SELECT $2", options).await.expect("each has a use");
    assert_well(&daemon).await;
}
