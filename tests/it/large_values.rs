//! Values that are kept outside of rows, as whoever asks for them gets them.

use bytes::Bytes;
use serde_json::{Value, json};
use weft::domain::sha256_hex;
use weft::store::fault::Call;
use weft::store::key;
use weft::store::port::Put;
use weft::testing::TestApp;
use weft::usecase::seed::DEVELOPMENT_KEY;

#[tokio::test]
async fn a_large_output_is_answered_as_it_is_read() {
    let app = TestApp::start().await;
    for letters in [10, 40_000, 5_000_000] {
        let value = json!({"name": "ä\"\n".repeat(letters)});
        app.scripted.push(
            weft::testing::WORKFLOW,
            weft::runner::scripted::Scene::returns(value.clone()),
        );
        let run = app.run("contoso", json!({})).await;
        let id = run["runId"].as_str().unwrap();
        let path = format!("/api/runs/{id}/steps/main/output");
        let ask = || app.request("GET", &path).key(DEVELOPMENT_KEY).organization("contoso");
        app.faults.reset();
        let answer = ask().send().await;
        assert_eq!(answer.status, 200, "{letters}");
        assert_eq!(answer.header("content-type"), "application/json");
        assert_eq!(answer.header("content-length"), answer.body.len().to_string());
        let expected = json!({"status": "succeeded", "output": value, "error": null});
        assert!(answer.json() == expected, "{letters}");
        let size = value.to_string().len();
        let reads = if letters == 10 { 0 } else { size.div_ceil(2 << 20) };
        assert_eq!(app.faults.count(Call::ReadBlob), reads as u64, "{letters}");
        if reads == 0 {
            continue;
        }

        // Another text of the same length is never an answer.
        let container = key::org_container(&"contoso".parse().unwrap());
        let blob = key::value_blob(&sha256_hex(value.to_string().as_bytes()));
        let other = Value::from("x".repeat(size - 2)).to_string();
        let put = app
            .ports
            .blobs
            .put(&container, &blob, Bytes::from(other), Put::Overwrite);
        put.await.unwrap();
        let (status, came) = ask().broken_off().await;
        assert_eq!(status, 200);
        assert!(came.is_some_and(|came| came < size), "{came:?}");
        app.ports
            .blobs
            .put(&container, &blob, Bytes::from_static(b"1"), Put::Overwrite)
            .await
            .unwrap();
        let short = ask().send().await;
        assert_eq!(
            (short.status, short.code().as_str()),
            (409, "step_unreadable"),
            "{short:?}"
        );
    }
}
