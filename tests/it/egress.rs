//! Connections of jailed processes: real interpreters under a real filter, real servers, names that only the broker knows.

use std::fs;
use std::net::IpAddr;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;
use tokio::sync::mpsc::UnboundedReceiver;
use weft::domain::Network;
use weft::egress::{Egress, EgressLimits, Gate, Grant, Notice, Opened, Resolver};

/// What the scripts begin with: `record(name, f)` keeps what `f` returned or raised, and all of it is printed at the end.
const PRELUDE: &str = r#"
import atexit, asyncio, errno, http.client, json, os, socket, ssl, struct, subprocess, sys, threading, time, urllib.request
HTTP, HTTPS, CA = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
seen = {}
atexit.register(lambda: print(json.dumps(seen)))
def record(name, f):
    print("… " + name, time.monotonic(), file=sys.stderr, flush=True)
    try:
        seen[name] = f()
    except BaseException as e:
        seen[name] = f"{type(e).__name__}:{errno.errorcode.get(getattr(e, 'errno', None), '')}"
def dial(host, port, timeout=5):
    with socket.create_connection((host, port), timeout):
        return "connected"
"#;

fn supports(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/jail").join(name)
}

/// The interpreter with the packages of the tests, which `scripts/test` installs.
fn tools() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(".weft/tools/venv/bin/python")
}

fn python() -> PathBuf {
    let tools = tools();
    if tools.exists() { tools } else { "python3".into() }
}

#[expect(clippy::disallowed_methods, reason = "programs of the tests")]
fn command(program: impl AsRef<std::ffi::OsStr>) -> Command {
    Command::new(program)
}

/// A web server outside of every jail.
struct Server {
    child: Child,
    ports: Vec<u16>,
    folder: TempDir,
}

impl Server {
    fn start() -> Self {
        let folder = TempDir::new().unwrap();
        let (certificate, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
        let made = command("openssl")
            .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"])
            .args([
                "-subj",
                "/CN=api.example.com",
                "-addext",
                "subjectAltName=DNS:api.example.com",
            ])
            .args([
                "-out".as_ref(),
                certificate.as_os_str(),
                "-keyout".as_ref(),
                key.as_os_str(),
            ])
            .stderr(Stdio::null())
            .status()
            .unwrap();
        assert!(made.success(), "openssl makes a certificate");
        let mut child = command(python())
            .arg(supports("server.py"))
            .args([&certificate, &key])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(child.stdout.as_mut().unwrap()), &mut line).unwrap();
        let ports = line.split_whitespace().map(|port| port.parse().unwrap()).collect();
        Self { child, ports, folder }
    }

    /// `host:port`, for HTTP and HTTPS.
    fn hosts(&self, name: &str) -> Vec<String> {
        self.ports.iter().map(|port| format!("{name}:{port}")).collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Every name below `example.com` is this machine; no other exists.
fn resolver() -> Resolver {
    Resolver::new(|name| {
        Box::pin(async move {
            if name.ends_with(".example.com") {
                Ok(vec![IpAddr::from([127, 0, 0, 1])])
            } else {
                Err(std::io::ErrorKind::NotFound.into())
            }
        })
    })
}

fn egress() -> Egress {
    Egress {
        opened: Opened::loopback(),
        resolver: resolver(),
        ..Egress::default()
    }
}

/// A script that has ended.
struct Ran {
    seen: Value,
    grant: Arc<Grant>,
    notices: UnboundedReceiver<Notice>,
}

impl Ran {
    fn refusals(&mut self) -> Vec<String> {
        let mut found = Vec::new();
        while let Ok(notice) = self.notices.try_recv() {
            if let Notice::Refused(refusal) = notice {
                found.push(refusal.to_string());
            }
        }
        found
    }
}

/// Runs a script under the filter, with this network, to its end.
async fn run(egress: &Egress, network: &[String], server: &Server, script: &str) -> Ran {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let theirs = rustix::io::dup(&theirs).unwrap();
    let file = server.folder.path().join(format!("script{}.py", theirs.as_raw_fd()));
    fs::write(&file, format!("{PRELUDE}{script}")).unwrap();
    let mut command = tokio::process::Command::from(command(python()));
    command
        .arg("-B")
        .arg(supports("notify_child.py"))
        .arg(theirs.as_raw_fd().to_string())
        .arg(&file)
        .args(server.ports.iter().map(ToString::to_string))
        .arg(server.folder.path().join("cert.pem"))
        .stdout(Stdio::piped())
        .kill_on_drop(true);
    let child = command.spawn().unwrap();
    drop(theirs);
    let gate = Gate::new(ours, false).unwrap();
    gate.is_served(Duration::from_secs(20)).await.unwrap();
    let (grant, notices) = egress.grant(&Network::declared(network));
    gate.open(Arc::clone(&grant));
    let output = tokio::time::timeout(Duration::from_secs(60), child.wait_with_output())
        .await
        .expect("the script ends")
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let seen =
        serde_json::from_str(text.lines().last().unwrap_or_default()).unwrap_or_else(|error| panic!("{error}: {text}"));
    drop(gate);
    Ran { seen, grant, notices }
}

#[tokio::test(flavor = "multi_thread")]
async fn libraries_work_unchanged() {
    let server = Server::start();
    let script = r#"
url, urls = f"http://api.example.com:{HTTP}", f"https://api.example.com:{HTTPS}"
tls = ssl.create_default_context(cafile=CA)
def plain():
    connection = http.client.HTTPConnection("api.example.com", HTTP)
    connection.request("POST", "/echo", b"y" * 300_000)
    return connection.getresponse().read() == b"y" * 300_000
async def streams():
    reader, writer = await asyncio.open_connection("api.example.com", HTTPS, ssl=tls)
    writer.write(b"GET /hello HTTP/1.0\r\nHost: streams\r\n\r\n")
    text = await reader.read()
    writer.close()
    return text.decode().splitlines()[-1]
async def many():
    return len(await asyncio.gather(*[streams() for _ in range(20)]))
def threads():
    answers = []
    def one(): answers.append(urllib.request.urlopen(url + "/hello").read())
    started = [threading.Thread(target=one) for _ in range(8)]
    [t.start() for t in started]; [t.join() for t in started]
    return len(answers)
def child():
    code = f"import urllib.request; print(urllib.request.urlopen('{url}/hello').read().decode(), end='')"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout
def options():
    s = socket.socket(); s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1); s.settimeout(3)
    kept = s.fileno(); s.connect(("api.example.com", HTTP))
    return [kept == s.fileno(), s.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0, os.get_inheritable(kept),
            os.get_blocking(kept), s.connect_ex(("api.example.com", HTTP)) == errno.EISCONN]
def half_closed():
    s = socket.create_connection(("api.example.com", HTTP))
    s.sendall(b"GET /hello HTTP/1.0\r\n\r\n"); s.shutdown(socket.SHUT_WR)
    data = b""
    while part := s.recv(4096): data += part
    return data.startswith(b"HTTP/1.")
record("urllib", lambda: urllib.request.urlopen(url + "/hello").read().decode())
record("urllib_tls", lambda: urllib.request.urlopen(urls + "/hello", context=tls).read().decode())
record("http_client", plain)
record("streams", lambda: asyncio.run(streams()))
record("many", lambda: asyncio.run(many()))
record("threads", threads)
record("child", child)
record("options", options)
record("half_closed", half_closed)
record("sequential", lambda: len([urllib.request.urlopen(url + "/hello").read() for _ in range(150)]))
def with_requests():
    import requests
    with requests.Session() as s:
        return [s.get(url + "/hello").text, s.get(urls + "/hello", verify=CA).text]
def with_httpx():
    import httpx
    with httpx.Client(verify=tls) as c:
        return [c.get(url + "/hello").text, c.get(urls + "/hello").text]
def with_httpx_async():
    import httpx
    async def go():
        async with httpx.AsyncClient(verify=tls) as c:
            return [r.text for r in await asyncio.gather(*[c.get(urls + "/hello") for _ in range(5)])]
    return len(asyncio.run(go()))
def with_aiohttp():
    import aiohttp
    async def go():
        async with aiohttp.ClientSession() as s:
            async with s.get(urls + "/hello", ssl=tls) as r: return await r.text()
    return asyncio.run(go())
record("requests", with_requests)
record("httpx", with_httpx)
record("httpx_async", with_httpx_async)
record("aiohttp", with_aiohttp)
"#;
    let mut ran = run(&egress(), &server.hosts("api.example.com"), &server, script).await;
    let (http, https) = (server.ports[0], server.ports[1]);
    let hello = |port: u16| Value::from(format!("hello, api.example.com:{port}"));
    assert_eq!(ran.seen["urllib"], hello(http));
    assert_eq!(ran.seen["urllib_tls"], hello(https));
    assert_eq!(ran.seen["http_client"], true);
    assert_eq!(ran.seen["streams"], "hello, streams");
    assert_eq!(ran.seen["many"], 20);
    assert_eq!(ran.seen["threads"], 8);
    assert_eq!(ran.seen["child"], hello(http));
    assert_eq!(ran.seen["options"], serde_json::json!([true, true, false, false, true]));
    assert_eq!(ran.seen["half_closed"], true);
    assert_eq!(
        ran.seen["sequential"], 150,
        "what a step has closed does not count as open"
    );
    for (library, expected) in [
        ("requests", Value::from(vec![hello(http), hello(https)])),
        ("httpx", Value::from(vec![hello(http), hello(https)])),
        ("httpx_async", Value::from(5)),
        ("aiohttp", hello(https)),
    ] {
        // Without the tools of the tests there may be none of them.
        if tools().exists() || ran.seen[library] != "ModuleNotFoundError:" {
            assert_eq!(ran.seen[library], expected, "{library}");
        }
    }
    assert_eq!(ran.refusals(), Vec::<String>::new());
    let used = ran.grant.used();
    assert!(
        used.bytes_sent > 300_000 && used.bytes_received > 300_000 && used.connections > 180,
        "{used:?}"
    );
    let by_host = ran.grant.used_by_host();
    assert_eq!(by_host.len(), 2, "{by_host:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_granted_is_refused_and_told() {
    let server = Server::start();
    let script = r#"
record("other_name", lambda: dial("www.example.com", HTTP))
record("other_port", lambda: dial("api.example.com", HTTPS))
record("no_such_name", lambda: dial("nowhere.example.org", 80))
record("literal", lambda: dial("127.0.0.1", HTTP))
record("v6", lambda: dial("::1", HTTP))
record("placeholder_of_nobody", lambda: dial("198.18.3.7", 80))
record("datagrams", lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).connect(("192.0.2.1", 53)))
record("local", lambda: socket.socket(socket.AF_UNIX).connect("/run/anything"))
record("abstract", lambda: socket.socket(socket.AF_UNIX).connect("\0anything"))
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
def raw(fd, address, length):
    def call():
        if libc.connect(fd, address, length) < 0: raise OSError(ctypes.get_errno(), "")
        return "connected"
    return call
s = socket.socket()
record("unspecified", raw(s.fileno(), struct.pack("=H14x", 0), 16))
record("too_short", raw(s.fileno(), struct.pack("=H14x", 2), 8))
record("too_long", raw(s.fileno(), b"\2\0" + bytes(200), 202))
record("no_memory", raw(s.fileno(), ctypes.c_void_p(8), 16))
record("no_descriptor", raw(999, struct.pack("=HHI8x", 2, 20480, 0), 16))
record("no_socket", raw(os.open("/dev/null", 0), struct.pack("=HHI8x", 2, 20480, 0), 16))
record("still_good", lambda: dial("api.example.com", HTTP))
"#;
    let network = [
        format!("api.example.com:{}", server.ports[0]),
        "nowhere.example.org".into(),
        "bad/pattern".into(),
    ];
    let mut ran = run(&egress(), &network, &server, script).await;
    for (what, how) in [
        ("other_name", "gaierror:"),
        ("other_port", "PermissionError:EACCES"),
        ("no_such_name", "gaierror:"),
        ("literal", "PermissionError:EACCES"),
        ("v6", "PermissionError:EACCES"),
        ("placeholder_of_nobody", "OSError:ENETUNREACH"),
        ("datagrams", "OSError:ENETUNREACH"),
        ("local", "PermissionError:EACCES"),
        ("abstract", "PermissionError:EACCES"),
        ("unspecified", "PermissionError:EPERM"),
        ("too_short", "OSError:EINVAL"),
        ("too_long", "OSError:EINVAL"),
        ("no_memory", "OSError:EFAULT"),
        ("no_descriptor", "OSError:EBADF"),
        ("no_socket", "OSError:ENOTSOCK"),
        ("still_good", "connected"),
    ] {
        let got = ran.seen[what].as_str().unwrap();
        assert!(got.starts_with(how), "{what}: {got}");
    }
    let refusals = ran.refusals();
    assert!(
        refusals[0].contains("add it in `@workflow`: `network=[\"www.example.com\"]`"),
        "{refusals:?}"
    );
    assert!(
        refusals[1].contains(&format!("network=[\"api.example.com:{}\"]", server.ports[1])),
        "{refusals:?}"
    );
    assert!(ran.grant.used().refused >= 4);
}

/// The same names, with nothing opened: what they resolve to decides.
#[tokio::test(flavor = "multi_thread")]
async fn no_name_leads_into_the_machine_or_its_networks() {
    let server = Server::start();
    let script = r#"
for name in ["api", "metadata", "lan", "mixed"]:
    record(name, lambda: dial(f"{name}.example.com", HTTP, 2))
record("localhost", lambda: dial("localhost", HTTP))
"#;
    let egress = Egress {
        resolver: Resolver::new(|name| {
            Box::pin(async move {
                Ok(match name.as_str() {
                    "metadata.example.com" => vec!["169.254.169.254".parse().unwrap()],
                    "lan.example.com" => vec!["10.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap()],
                    _ => vec!["127.0.0.1".parse().unwrap(), "::1".parse().unwrap()],
                })
            })
        }),
        ..Egress::default()
    };
    let mut ran = run(&egress, &["*".into()], &server, script).await;
    for name in ["api", "metadata", "lan", "mixed", "localhost"] {
        assert_eq!(ran.seen[name], "PermissionError:EACCES", "{name}");
    }
    let refusals = ran.refusals().join("\n");
    for words in [
        "a loopback address",
        "the platform's own services",
        "`WEFT_EGRESS_PRIVATE`",
    ] {
        assert!(refusals.contains(words), "{refusals}");
    }
    assert_eq!(ran.grant.used().bytes_sent, 0);
}

/// A name whose address changes between the look-up and the connection gains nothing: what is connected to is judged.
#[tokio::test(flavor = "multi_thread")]
async fn rebinding_gains_nothing() {
    let server = Server::start();
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let egress = Egress {
        resolver: Resolver::new(move |_| {
            let first = count.fetch_add(1, Ordering::SeqCst) == 0;
            let address: IpAddr = if first { "93.184.216.34" } else { "127.0.0.1" }.parse().unwrap();
            Box::pin(async move { Ok(vec![address]) })
        }),
        ..Egress::default()
    };
    let script = r#"
record("rebound", lambda: dial("api.example.com", HTTP))
"#;
    let ran = run(&egress, &server.hosts("api.example.com"), &server, script).await;
    assert_eq!(ran.seen["rebound"], "PermissionError:EACCES");
    assert!(
        asked.load(Ordering::SeqCst) >= 2,
        "the name was resolved again for the connection"
    );
}

/// Another thread rewrites the address while the call is being judged: the connection goes where it was judged to go.
#[tokio::test(flavor = "multi_thread")]
async fn rewriting_the_address_gains_nothing() {
    let server = Server::start();
    let other = Server::start();
    let script = format!(
        r#"
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
good = socket.inet_aton(socket.gethostbyname("api.example.com"))
FORBIDDEN = {}
def address(ip, port): return struct.pack("=H", 2) + struct.pack(">H", port) + ip + bytes(8)
first, second = address(good, HTTP), address(socket.inet_aton("127.0.0.1"), FORBIDDEN)
buffer = ctypes.create_string_buffer(first, 16)
stop = False
def rewrite():
    while not stop:
        buffer.raw = second
        buffer.raw = first
thread = threading.Thread(target=rewrite, daemon=True); thread.start()
sys.setswitchinterval(1e-5)
outcomes = {{}}
def attempt():
    s = socket.socket(); s.settimeout(None)
    got = libc.connect(s.fileno(), buffer, 16)
    if got == 0:
        s.sendall(b"GET /hello HTTP/1.0\r\nHost: x\r\n\r\n")
        data = b""
        while part := s.recv(4096): data += part
        key = "answered" if b"hello" in data else "odd"
    else:
        key = errno.errorcode[ctypes.get_errno()]
    outcomes[key] = outcomes.get(key, 0) + 1
    s.close()
for _ in range(200): attempt()
stop = True
seen.update(outcomes)
"#,
        other.ports[0]
    );
    let ran = run(&egress(), &server.hosts("api.example.com"), &server, &script).await;
    let hosts: Vec<_> = ran.grant.used_by_host().into_iter().map(|(host, _)| host).collect();
    assert_eq!(hosts, [format!("api.example.com:{}", server.ports[0])], "{}", ran.seen);
    assert!(ran.seen["answered"].as_u64().unwrap_or_default() > 0, "{}", ran.seen);
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_of_connections_and_bytes_hold() {
    let server = Server::start();
    let script = r#"
opened = []
def fill():
    for _ in range(10):
        opened.append(socket.create_connection(("api.example.com", HTTP), 5))
record("at_once", fill)
seen["opened"] = len(opened)
[s.close() for s in opened]
time.sleep(0.3)
record("bytes_below", lambda: len(urllib.request.urlopen(f"http://api.example.com:{HTTP}/bytes/500000").read()))
idle = socket.create_connection(("api.example.com", HTTP), 5)
record("bytes_above", lambda: len(urllib.request.urlopen(f"http://api.example.com:{HTTP}/bytes/700000").read()))
record("idle_ended", lambda: idle.recv(10).decode())
record("afterwards", lambda: dial("api.example.com", HTTP))
"#;
    let egress = Egress {
        limits: EgressLimits {
            open: 4,
            connections: 20,
            bytes: 1_000_000,
        },
        ..egress()
    };
    let mut ran = run(&egress, &server.hosts("api.example.com"), &server, script).await;
    assert_eq!(ran.seen["at_once"], "PermissionError:EACCES");
    assert_eq!(ran.seen["opened"], 4);
    assert_eq!(ran.seen["bytes_below"], 500_000);
    let above = ran.seen["bytes_above"].as_str().unwrap();
    assert!(
        above.starts_with("IncompleteRead") || above.starts_with("ConnectionReset"),
        "{above}"
    );
    assert!(["", "ConnectionResetError:ECONNRESET"].contains(&ran.seen["idle_ended"].as_str().unwrap()));
    assert_eq!(
        ran.seen["afterwards"], "gaierror:",
        "there is no name server any more either"
    );
    let refusals = ran.refusals().join("\n");
    for variable in ["WEFT_EGRESS_OPEN", "WEFT_EGRESS_BYTES"] {
        assert!(refusals.contains(variable), "{refusals}");
    }
    let used = ran.grant.used();
    assert!(used.bytes_sent + used.bytes_received <= 1_000_000, "{used:?}");
}

/// Until it is opened, everything is refused: modules are imported before there is an attempt.
#[tokio::test(flavor = "multi_thread")]
async fn a_gate_is_shut_until_it_is_opened() {
    let server = Server::start();
    let (ours, theirs) = UnixStream::pair().unwrap();
    let theirs = rustix::io::dup(&theirs).unwrap();
    let file = server.folder.path().join("shut.py");
    fs::write(
        &file,
        format!("{PRELUDE}\nrecord('shut', lambda: dial('127.0.0.1', HTTP))"),
    )
    .unwrap();
    let mut command = tokio::process::Command::from(command(python()));
    let child = command
        .arg(supports("notify_child.py"))
        .args([theirs.as_raw_fd().to_string().as_ref(), file.as_os_str()])
        .args([server.ports[0].to_string(), "0".into(), "none".into()])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    drop(theirs);
    let gate = Gate::new(ours, false).unwrap();
    let output = child.wait_with_output().await.unwrap();
    assert_eq!(
        String::from_utf8(output.stdout).unwrap(),
        "{\"shut\": \"PermissionError:EACCES\"}\n"
    );
    drop(gate);
    let (ours, theirs) = UnixStream::pair().unwrap();
    drop(theirs);
    let gate = Gate::new(ours, false).unwrap();
    let missing = gate.is_served(Duration::from_secs(5)).await.unwrap_err();
    assert_eq!(missing, "the worker has handed no filter over");
}

/// Where `connect()` can't be answered, the usual variables lead through a proxy with the same rules.
#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_follows_the_same_rules() {
    let server = Server::start();
    let script = r#"
tls = ssl.create_default_context(cafile=CA)
opener = lambda: urllib.request.build_opener(urllib.request.HTTPSHandler(context=tls))
def get(url):
    try:
        with opener().open(url, timeout=5) as r: return r.read().decode()
    except urllib.error.HTTPError as e:
        return f"{e.code} {e.read().decode()}"
record("plain", lambda: [get(f"http://api.example.com:{HTTP}/hello") for _ in range(3)])
record("tunnel", lambda: get(f"https://api.example.com:{HTTPS}/hello"))
record("refused", lambda: get(f"http://www.example.com:{HTTP}/hello"))
def tunnel_refused():
    try: opener().open(f"https://www.example.com:{HTTPS}/hello")
    except OSError as e: return str(e)
record("tunnel_refused", tunnel_refused)
def stranger():
    host, port = os.environ["HTTP_PROXY"].rsplit("@", 1)[1].split(":")
    c = http.client.HTTPConnection(host, int(port)); c.request("GET", f"http://api.example.com:{HTTP}/hello")
    return c.getresponse().status
record("stranger", stranger)
def with_requests():
    import requests
    return [requests.get(f"http://api.example.com:{HTTP}/hello").text, requests.get(f"https://api.example.com:{HTTPS}/hello", verify=CA).text]
record("requests", with_requests)
"#;
    let file = server.folder.path().join("proxied.py");
    fs::write(&file, format!("{PRELUDE}{script}")).unwrap();
    let gate = Gate::by_proxy("secret").unwrap();
    gate.is_served(Duration::ZERO).await.unwrap();
    let (grant, mut notices) = egress().grant(&Network::declared(&server.hosts("api.example.com")));
    gate.open(Arc::clone(&grant));
    let mut command = tokio::process::Command::from(command(python()));
    let output = command
        .arg(&file)
        .args(server.ports.iter().map(ToString::to_string))
        .arg(server.folder.path().join("cert.pem"))
        .env("HTTP_PROXY", gate.proxy().unwrap())
        .env("HTTPS_PROXY", gate.proxy().unwrap())
        .env_remove("http_proxy")
        .env_remove("https_proxy")
        .env_remove("no_proxy")
        .env_remove("NO_PROXY")
        .stdout(Stdio::piped())
        .output();
    let output = tokio::time::timeout(Duration::from_secs(30), output)
        .await
        .unwrap()
        .unwrap();
    let seen: Value = serde_json::from_slice(&output.stdout).unwrap();
    let (http, https) = (server.ports[0], server.ports[1]);
    let hello = |port: u16| Value::from(format!("hello, api.example.com:{port}"));
    assert_eq!(seen["plain"], Value::from(vec![hello(http); 3]));
    assert_eq!(seen["tunnel"], hello(https));
    let line = "network=[\"www.example.com:";
    let refused = seen["refused"].as_str().unwrap();
    assert!(refused.starts_with("403 ") && refused.contains(line), "{refused}");
    let refused = seen["tunnel_refused"].as_str().unwrap();
    assert!(refused.contains("403") && refused.contains(line), "{refused}");
    assert_eq!(seen["stranger"], 407);
    if tools().exists() || seen["requests"] != "ModuleNotFoundError:" {
        assert_eq!(seen["requests"], Value::from(vec![hello(http), hello(https)]));
    }
    let told = std::iter::from_fn(|| notices.try_recv().ok()).filter(|notice| matches!(notice, Notice::Refused(_)));
    assert_eq!(told.count(), 2);
    assert!(grant.used().bytes_received > 0);
}
