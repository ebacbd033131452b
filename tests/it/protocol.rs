//! The golden messages of the runner protocol, as this side reads and writes them. The Python side is held to the same.

use std::fs;
use std::path::Path;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use serde_json::Value;
use weft::domain::{Limits, Rights};
use weft::runner::jail::Jail;
use weft::runner::jail::setup::{Setup, Uids};
use weft::runner::protocol::{Answer, FrameBuffer, HandlerFrame, Request, RequestBundle, Resume, Task, WorkerFrame};
use weft::runner::{Entry, Refusal};

fn golden(folder: &str) -> Vec<Value> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden/protocol")
        .join(folder);
    let mut all: Vec<Value> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| serde_json::from_slice(&fs::read(entry.unwrap().path()).unwrap()).unwrap())
        .collect();
    all.sort_by_key(|example| example["name"].to_string());
    assert!(!all.is_empty());
    all
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_else(|| panic!("`{name}` of {value}"))
}

#[test]
fn frames_of_workers_are_read() {
    for example in golden("frames").iter().filter(|example| example["from"] == "worker") {
        let message = &example["message"];
        let bytes = serde_json::to_vec(message).unwrap();
        let mut buffer = FrameBuffer::new(1 << 20);
        buffer.extend(&u32::try_from(bytes.len()).unwrap().to_be_bytes());
        buffer.extend(&bytes);
        let frame = WorkerFrame::parse(&buffer.take().unwrap().unwrap()).unwrap_or_else(|e| panic!("{message}: {e}"));
        assert!(buffer.is_empty());
        assert_eq!(frame.kind(), message["t"]);
        match frame {
            WorkerFrame::Ready { import_ms, boot_ms } => {
                assert_eq!(
                    (message["import_ms"].as_f64(), message["boot_ms"].as_f64()),
                    (Some(import_ms), Some(boot_ms))
                );
            }
            WorkerFrame::Log {
                level,
                message: said,
                fields,
                at,
            } => {
                assert_eq!(
                    (text(message, "level"), text(message, "message")),
                    (level.as_str(), said.as_str())
                );
                assert_eq!(message["fields"], fields.unwrap_or(Value::Null));
                assert!((message["at"].as_f64().unwrap() * 1_000.0 - at.millis() as f64).abs() < 1.0);
            }
            WorkerFrame::Checkpoint { name, data } => {
                assert_eq!((text(message, "name"), &message["data"]), (name.as_str(), &data));
            }
            WorkerFrame::Call { id, name, args } => {
                assert_eq!(
                    (message["id"].as_u64(), text(message, "name")),
                    (Some(id), name.as_str())
                );
                assert_eq!(message["args"], args);
            }
            WorkerFrame::Succeeded { value, variables, .. } => {
                assert_eq!((&message["value"], &message["variables"]), (&value, &variables));
            }
            WorkerFrame::Failed { error, variables, .. } => {
                assert_eq!(text(&message["error"], "type"), error.kind);
                assert_eq!(text(&message["error"], "message"), error.message);
                assert_eq!(message["error"]["retriable"].as_bool(), error.retriable);
                assert_eq!(message["error"]["data"], error.data.unwrap_or(Value::Null));
                assert_eq!(message["variables"], variables);
            }
            WorkerFrame::Described(module) => {
                assert_eq!(
                    (&message["path"], &message["findings"]),
                    (&module["path"], &module["findings"])
                );
            }
            WorkerFrame::DescribedAll { files, ms } => {
                assert_eq!(
                    (message["files"].as_u64(), message["ms"].as_f64()),
                    (Some(files), Some(ms))
                );
            }
        }
    }
}

#[test]
fn frames_to_workers_are_written() {
    for example in golden("frames").iter().filter(|example| example["from"] == "handler") {
        let message = &example["message"];
        let entry: Option<Entry> = serde_json::from_value(message["entry"].clone()).ok();
        let resume = message.get("resume").map(|resume| Resume {
            described: usize::try_from(resume["described"].as_u64().unwrap()).unwrap(),
            reason: text(resume, "reason").to_owned(),
            taken: serde_json::from_value(resume["taken"].clone()).unwrap(),
            crashes: 1,
        });
        let frame = match text(message, "t") {
            "attempt" => HandlerFrame::Attempt {
                entry: entry.as_ref().unwrap(),
                arguments: &message["arguments"],
                context: &message["context"],
                nice: message
                    .get("nice")
                    .map(|nice| nice.as_u64().unwrap().try_into().unwrap()),
            },
            "source" => HandlerFrame::Source {
                name: text(message, "name"),
                version: text(message, "version"),
                digest: text(message, "digest"),
                code: text(message, "code"),
            },
            "reply" => HandlerFrame::Reply {
                id: message["id"].as_u64().unwrap(),
                value: message.get("value").cloned(),
                error: message
                    .get("error")
                    .map(|error| serde_json::from_value::<Refusal>(error.clone()).unwrap()),
            },
            "describe" => HandlerFrame::Describe {
                root_name: text(message, "root_name"),
                resume: resume.as_ref(),
            },
            other => panic!("{other}"),
        };
        let bytes = frame.encode(1 << 20).unwrap();
        assert_eq!(
            u32::from_be_bytes(*bytes.first_chunk().unwrap()) as usize,
            bytes.len() - 4
        );
        assert_eq!(serde_json::from_slice::<Value>(&bytes[4..]).unwrap(), *message);
    }
}

#[test]
fn control_messages_are_written_and_read() {
    for example in golden("control") {
        let message = &example["message"];
        let id = message["id"].as_u64().unwrap_or_default();
        if example["from"] == "zygote" {
            match Answer::parse(&serde_json::to_vec(message).unwrap()).unwrap() {
                Answer::Ready {
                    version: 1,
                    pid: 123,
                    posture,
                    ..
                } => {
                    assert_eq!(message["op"], "ready");
                    assert_eq!(posture.is_some(), message.get("posture").is_some());
                    let Some(posture) = posture else { continue };
                    let said = &message["posture"];
                    assert_eq!(serde_json::to_value(&*posture.layers).unwrap(), said["layers"]);
                    assert_eq!(serde_json::to_value(&posture.missing).unwrap(), said["missing"]);
                    assert_eq!(text(said, "tier"), posture.tier.as_str());
                    assert_eq!(said["landlock_abi"].as_u64(), Some(posture.landlock_abi.into()));
                    assert_eq!(
                        (text(said, "tree_kill"), text(said, "disk_quota")),
                        (posture.tree_kill.as_str(), posture.disk_quota.as_str())
                    );
                }
                Answer::Refused { version: 1, .. } => assert_eq!(message["op"], "refused"),
                Answer::Forked { id: 7, pid: 124 } => assert_eq!(message["op"], "forked"),
                Answer::ForkFailed { id: Some(7), .. } => assert_eq!(message["op"], "fork_failed"),
                Answer::Exited { id: 7, exit } => {
                    assert_eq!(message["code"].as_i64(), exit.code.map(i64::from));
                    assert_eq!(message["signal"].as_i64(), exit.signal.map(i64::from));
                    assert_eq!((exit.max_rss_kib, exit.cpu_ms), (Some(25_000), Some(3)));
                }
                other => panic!("{other:?}"),
            }
            continue;
        }
        let limit = |name: &str| message["limits"][name].as_u64().unwrap();
        let texts_of = |value: &Value| serde_json::from_value::<Vec<String>>(value.clone()).unwrap_or_default();
        let preload = texts_of(&message["preload"]);
        let preload_paths = texts_of(&message["preload_paths"]);
        let preload_paths: Vec<&str> = preload_paths.iter().map(String::as_str).collect();
        let paths = texts_of(&message["paths"]);
        let paths: Vec<&str> = paths.iter().map(String::as_str).collect();
        let hosts = message["jail"]["network"]
            .as_bool()
            .unwrap_or_default()
            .then(|| "*".to_owned());
        let jail = Jail::from(&Rights::of_workspace(hosts.as_slice()));
        let walls = &message["jail"];
        let filters = ["restricted", "trusted"];
        let number = |name: &str| walls["uids"][name].as_u64().and_then(|number| number.try_into().ok());
        let setup = Setup {
            off: texts_of(&walls["off"]),
            uids: number("first")
                .zip(number("count"))
                .map(|(first, count)| Uids { first, count }),
            filters: filters
                .map(|name| (name, walls["filters"][name].as_str().unwrap_or_default().to_owned()))
                .into(),
            scratch: walls["scratch"].as_str().unwrap_or_default().to_owned(),
            read: texts_of(&walls["read"]),
            hide: texts_of(&walls["hide"]),
        };
        let request = match text(message, "op") {
            "hello" => Request::Hello {
                version: 1,
                preload: &preload,
                preload_paths: &preload_paths,
                jail: &setup,
            },
            "kill" => Request::Kill { id },
            "fork" => Request::Fork {
                id,
                task: if message["task"] == "attempt" {
                    Task::Attempt
                } else {
                    Task::Describe
                },
                bundle: RequestBundle {
                    digest: text(&message["bundle"], "digest"),
                    dir: text(&message["bundle"], "dir"),
                },
                module: message["module"].as_str(),
                scratch: text(message, "scratch"),
                limits: (&Limits {
                    memory_bytes: limit("memory_bytes"),
                    cpu_seconds: limit("cpu_seconds"),
                    open_files: limit("open_files"),
                    processes: limit("processes"),
                    threads: limit("threads"),
                    disk_bytes: limit("disk_bytes"),
                    disk_files: limit("disk_files"),
                    result_bytes: limit("result_bytes"),
                    frame_bytes: limit("frame_bytes"),
                    ..Limits::default()
                })
                    .into(),
                jail: &jail,
                paths: &paths,
                proxy: message["proxy"].as_str(),
                debug: message["debug"].as_str(),
            },
            other => panic!("{other}"),
        };
        assert_eq!(
            serde_json::from_slice::<Value>(&request.encode().unwrap()).unwrap(),
            *message
        );
    }
    assert!(matches!(
        Answer::parse(br#"{"op":"fork_failed","id":null,"error":"x"}"#),
        Ok(Answer::ForkFailed { id: None, .. })
    ));
}

#[test]
fn bad_bytes_are_violations() {
    for example in golden("bad") {
        let mut buffer = FrameBuffer::new(example["frame_bytes"].as_u64().unwrap());
        buffer.extend(&BASE64_STANDARD.decode(text(&example, "bytes_base64")).unwrap());
        let refused = loop {
            match buffer.take() {
                Ok(Some(frame)) => {
                    if WorkerFrame::parse(&frame).is_err() {
                        break true;
                    }
                }
                // At the end of the socket, half a frame is none.
                Ok(None) => break !buffer.is_empty(),
                Err(_) => break true,
            }
        };
        assert!(refused, "{}", example["name"]);
    }
}
