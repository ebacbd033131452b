//! The contract of blobs: written whole, by appending or in parts, read whole and in ranges, listed, and deleted as they
//! were seen.

use bytes::Bytes;

use super::{exists_already, in_tasks, malformed, not_found, ok, precondition_failed, too_large};
use crate::store::error::Error;
use crate::store::port::{
    BlobPath, ContainerName, ETag, MAX_APPEND_BYTES, MAX_PAGE, Match, PART_BYTES, Ports, Put, Upload,
};

fn blob(path: &str) -> BlobPath {
    ok(BlobPath::new(path))
}

async fn container(ports: &Ports, check: &str, unique: &str) -> ContainerName {
    let name = ok(ContainerName::new(format!("conf-{check}-{unique}")));
    ok(ports.blobs.create_container(&name).await);
    name
}

/// Create, overwrite, read whole and in ranges, delete.
pub async fn blobs_are_put_and_read(ports: &Ports, unique: &str) {
    const ALL: u64 = u64::MAX;
    let blobs = &ports.blobs;
    let missing = ok(ContainerName::new(format!("conf-none-{unique}")));
    let path = blob("a/b-c_d.e=f:g");
    let bytes = |text: &'static str| Bytes::from_static(text.as_bytes());
    not_found(blobs.put(&missing, &path, bytes("x"), Put::Create).await);
    not_found(blobs.put(&missing, &path, bytes("x"), Put::Overwrite).await);
    not_found(blobs.append(&missing, &path, 0, bytes("x")).await);
    not_found(blobs.get(&missing, &path, ALL).await);
    not_found(blobs.read(&missing, &path, 0, 1).await);
    not_found(blobs.list(&missing, "", None).await);
    not_found(blobs.delete(&missing, &path, Match::Any).await);
    ok(blobs.delete_container(&missing).await);

    let name = container(ports, "put", unique).await;
    assert_eq!(ok(blobs.get(&name, &path, ALL).await), None);
    assert_eq!(ok(blobs.read(&name, &path, 0, 10).await), None);
    assert!(!ok(blobs.delete(&name, &path, Match::Any).await), "there was none");
    ok(blobs.put(&name, &path, bytes("first"), Put::Create).await);
    exists_already(blobs.put(&name, &path, bytes("second"), Put::Create).await, 0);
    assert_eq!(
        ok(blobs.get(&name, &path, ALL).await),
        Some(bytes("first")),
        "what failed left no trace"
    );
    ok(blobs.put(&name, &path, bytes("other"), Put::Overwrite).await);
    ok(blobs.create_container(&name).await);
    assert_eq!(ok(blobs.get(&name, &path, 5).await), Some(bytes("other")));
    too_large(blobs.get(&name, &path, 4).await);
    assert_eq!(ok(blobs.get(&name, &blob("a"), ALL).await), None, "a folder is no blob");

    for (offset, length, expected) in [
        (0, 5, "other"),
        (0, 99, "other"),
        (1, 3, "the"),
        (4, 1, "r"),
        (4, 9, "r"),
        (5, 1, ""),
        (99, 1, ""),
        (2, 0, ""),
    ] {
        let read = ok(blobs.read(&name, &path, offset, length).await);
        assert_eq!(read, Some(bytes(expected)), "{length} bytes from {offset}");
    }

    // Larger than any block or chunk.
    let large: Bytes = (0..5_000_000_u32)
        .map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect::<Vec<_>>()
        .into();
    ok(blobs.put(&name, &blob("large"), large.clone(), Put::Overwrite).await);
    assert!(
        ok(blobs.get(&name, &blob("large"), ALL).await).as_ref() == Some(&large),
        "a large blob comes back"
    );
    for (offset, length) in [
        (0, 1),
        (65_535, 2),
        (65_536, 65_536),
        (131_000, 200_000),
        (4_999_999, 10),
    ] {
        let read = ok(blobs.read(&name, &blob("large"), offset, length).await).unwrap_or_default();
        let (start, end) = (offset as usize, (offset as usize + length as usize).min(large.len()));
        assert!(read == large[start..end], "{length} bytes from {offset}");
    }
    too_large(blobs.get(&name, &blob("large"), 4_999_999).await);
    ok(blobs.put(&name, &blob("large"), bytes("small"), Put::Overwrite).await);
    assert_eq!(
        ok(blobs.get(&name, &blob("large"), ALL).await),
        Some(bytes("small")),
        "nothing of the large one is left"
    );

    ok(blobs.put(&name, &blob("empty"), Bytes::new(), Put::Create).await);
    assert_eq!(ok(blobs.get(&name, &blob("empty"), 0).await), Some(Bytes::new()));
    assert_eq!(ok(blobs.read(&name, &blob("empty"), 0, 10).await), Some(Bytes::new()));
    assert!(ok(blobs.delete(&name, &path, Match::Any).await));
    assert!(!ok(blobs.delete(&name, &path, Match::Any).await));
    assert_eq!(ok(blobs.get(&name, &path, ALL).await), None);
    ok(blobs.delete_container(&name).await);
    not_found(blobs.get(&name, &path, ALL).await);

    for text in [
        "", "/a", "a/", "a//b", ".", "..", "a/../b", "a b", "ü", "a?b", "a%2Fb", "a\\b",
    ] {
        malformed(BlobPath::new(text));
    }
}

/// An append succeeds where the caller believes the end to be, and only there.
pub async fn blobs_grow_where_expected(ports: &Ports, unique: &str) {
    let blobs = &ports.blobs;
    let name = container(ports, "append", unique).await;
    let log = blob("log");
    let bytes = |text: &'static str| Bytes::from_static(text.as_bytes());
    precondition_failed(blobs.append(&name, &log, 3, bytes("x")).await, 0);
    assert!(
        ok(blobs.get(&name, &log, 99).await).is_none_or(|stored| stored.is_empty()),
        "what failed wrote nothing"
    );
    ok(blobs.append(&name, &log, 0, bytes("one ")).await);
    precondition_failed(blobs.append(&name, &log, 0, bytes("one ")).await, 0);
    precondition_failed(blobs.append(&name, &log, 5, bytes("two ")).await, 0);
    ok(blobs.append(&name, &log, 4, bytes("two ")).await);
    ok(blobs.append(&name, &log, 8, bytes("three")).await);
    assert_eq!(ok(blobs.get(&name, &log, 99).await), Some(bytes("one two three")));
    assert_eq!(
        ok(blobs.read(&name, &log, 2, 8).await),
        Some(bytes("e two th")),
        "a range over several appends"
    );
    assert_eq!(ok(blobs.read(&name, &log, 13, 8).await), Some(Bytes::new()));
    too_large(
        blobs
            .append(&name, &log, 13, Bytes::from(vec![0; MAX_APPEND_BYTES + 1]))
            .await,
    );
    ok(blobs
        .append(&name, &log, 13, Bytes::from(vec![b'.'; MAX_APPEND_BYTES]))
        .await);
    let whole = ok(blobs.get(&name, &log, u64::MAX).await).unwrap_or_default();
    assert_eq!(whole.len(), 13 + MAX_APPEND_BYTES);
    assert_eq!(
        ok(blobs.list(&name, "log", None).await).blobs[0].size,
        13 + MAX_APPEND_BYTES as u64
    );

    // Of two that append at the same place, one wins.
    let race = blob("race");
    in_tasks(8, |task| {
        let (ports, name, race) = (ports.clone(), name.clone(), race.clone());
        async move {
            for round in 0..5 {
                match ports
                    .blobs
                    .append(&name, &race, round * 2, Bytes::from(format!("{task}{round}")))
                    .await
                {
                    Ok(()) | Err(Error::PreconditionFailed { .. }) => {}
                    Err(error) => panic!("only the position may fail an append: {error:?}"),
                }
            }
        }
    })
    .await;
    let raced = ok(blobs.get(&name, &race, 99).await).unwrap_or_default();
    let rounds: Vec<u8> = raced.chunks(2).map(|pair| pair[1]).collect();
    assert_eq!(rounds, b"01234", "each place was written once");

    let whole = blob("whole");
    ok(blobs.put(&name, &whole, bytes("x"), Put::Create).await);
    exists_already(blobs.append(&name, &whole, 1, bytes("y")).await, 0);
    exists_already(blobs.put(&name, &log, bytes("x"), Put::Create).await, 0);
    assert!(ok(blobs.delete(&name, &log, Match::Any).await));
    ok(blobs.append(&name, &log, 0, bytes("again")).await);
    assert_eq!(ok(blobs.get(&name, &log, 99).await), Some(bytes("again")));
    ok(blobs.delete_container(&name).await);
}

/// Parts are seen when they have become a blob, whoever writes the same one at the same time.
pub async fn blobs_are_made_of_parts(ports: &Ports, unique: &str) {
    let blobs = &ports.blobs;
    let name = container(ports, "parts", unique).await;
    let path = blob("parts/one");
    let bytes: Bytes = (0..PART_BYTES as u32 + 100_000)
        .map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect::<Vec<_>>()
        .into();
    let (size, first) = (bytes.len() as u64, bytes.slice(..PART_BYTES));
    let (rest, second) = (bytes.slice(PART_BYTES..), PART_BYTES as u64);
    let missing = ok(ContainerName::new(format!("conf-none-{unique}")));
    not_found(blobs.lay_aside(&missing, &path, Upload(1), 0, rest.clone()).await);
    too_large(
        blobs
            .lay_aside(&name, &path, Upload(1), 0, bytes.slice(..=PART_BYTES))
            .await,
    );
    malformed(blobs.lay_aside(&name, &path, Upload(1), 5, rest.clone()).await);
    malformed(blobs.lay_aside(&name, &path, Upload(1), 0, Bytes::new()).await);

    precondition_failed(blobs.assemble(&name, &path, Upload(1), size).await, 0);
    ok(blobs.lay_aside(&name, &path, Upload(1), 0, first.clone()).await);
    ok(blobs.lay_aside(&name, &path, Upload(1), 0, first.clone()).await);
    precondition_failed(blobs.assemble(&name, &path, Upload(1), size).await, 0);
    ok(blobs.lay_aside(&name, &path, Upload(1), second, rest.clone()).await);
    ok(blobs.lay_aside(&name, &path, Upload(1), second, rest.clone()).await);
    assert_eq!(ok(blobs.read(&name, &path, 0, 1).await), None, "nobody sees a part");
    assert_eq!(ok(blobs.list(&name, "", None).await).blobs, [], "no list has parts");

    // Another writer of the same: one of the two makes the blob, and what the other has laid aside is of no use.
    ok(blobs.lay_aside(&name, &path, Upload(2), 0, first.clone()).await);
    ok(blobs.assemble(&name, &path, Upload(1), size).await);
    let whole = ok(blobs.get(&name, &path, size).await);
    assert!(whole.as_ref() == Some(&bytes), "the blob has its parts in order");
    match blobs.lay_aside(&name, &path, Upload(2), second, rest.clone()).await {
        Ok(()) | Err(Error::PreconditionFailed { .. }) => {}
        Err(error) => panic!("the other writer meets nothing worse: {error:?}"),
    }
    match blobs.assemble(&name, &path, Upload(2), size).await {
        Err(Error::PreconditionFailed { .. } | Error::AlreadyExists { .. }) => {}
        other => panic!("there is one already: {other:?}"),
    }
    assert!(
        ok(blobs.get(&name, &path, size).await) == Some(bytes.clone()),
        "it is as it was"
    );

    let small = blob("parts/small");
    ok(blobs
        .lay_aside(&name, &small, Upload(3), 0, Bytes::from_static(b"x"))
        .await);
    ok(blobs.throw_away(&name, &small, Upload(3)).await);
    ok(blobs.throw_away(&name, &small, Upload(3)).await);
    assert_eq!(ok(blobs.get(&name, &small, 9).await), None);
    let listed = ok(blobs.list(&name, "", None).await).blobs;
    assert_eq!(listed.len(), 1, "{listed:?}");
    ok(blobs.delete_container(&name).await);
}

/// A touch is another version of the same bytes, and who has seen the version before deletes nothing.
pub async fn blobs_are_deleted_as_they_were_seen(ports: &Ports, unique: &str) {
    let blobs = &ports.blobs;
    let name = container(ports, "touch", unique).await;
    let path = blob("value/one");
    assert!(!ok(blobs.touch(&name, &path).await), "there is none");
    let is_missing = async |etag: ETag| match blobs.delete(&name, &path, Match::Exactly(etag)).await {
        Ok(false) | Err(Error::PreconditionFailed { .. }) => {}
        other => panic!("there is none: {other:?}"),
    };
    is_missing(ETag("none".into())).await;
    ok(blobs.put(&name, &path, Bytes::from_static(b"bytes"), Put::Create).await);
    let seen = async || ok(blobs.list(&name, "", None).await).blobs.remove(0);
    let first = seen().await;
    assert_eq!((first.path.as_str(), first.size), ("value/one", 5));
    assert_eq!(seen().await, first, "looking changes nothing");
    assert!(ok(blobs.touch(&name, &path).await));
    let second = seen().await;
    assert_ne!(second.etag, first.etag);
    assert!(second.modified >= first.modified);
    assert_eq!(ok(blobs.get(&name, &path, 9).await), Some(Bytes::from_static(b"bytes")));
    for wrong in [first.etag, ETag("none".into())] {
        precondition_failed(blobs.delete(&name, &path, Match::Exactly(wrong)).await, 0);
    }
    assert!(ok(blobs
        .delete(&name, &path, Match::Exactly(second.etag.clone()))
        .await));
    is_missing(second.etag).await;
    ok(blobs.put(&name, &path, Bytes::from_static(b"again"), Put::Create).await);
    let third = seen().await;
    ok(blobs.delete(&name, &path, Match::Exactly(third.etag)).await);
    ok(blobs.delete_container(&name).await);
}

/// In order, by prefix, in pages.
pub async fn blobs_are_listed(ports: &Ports, unique: &str) {
    const BLOBS: usize = 1005;
    let blobs = &ports.blobs;
    let name = container(ports, "list", unique).await;
    assert_eq!(ok(blobs.list(&name, "", None).await), Default::default());
    in_tasks(8, |task| {
        let (ports, name) = (ports.clone(), name.clone());
        async move {
            for number in (0..BLOBS).skip(task as usize).step_by(8) {
                let bytes = Bytes::from(vec![b'x'; number % 3]);
                ok(ports
                    .blobs
                    .put(&name, &blob(&format!("many/{number:04}")), bytes, Put::Create)
                    .await);
            }
        }
    })
    .await;
    for path in ["a", "b/1", "b/2", "b-1", "c"] {
        ok(blobs.put(&name, &blob(path), Bytes::new(), Put::Create).await);
    }
    let list = async |prefix: &str| {
        let (mut paths, mut after) = (Vec::new(), None);
        for _ in 0..100 {
            let page = ok(blobs.list(&name, prefix, after).await);
            assert!(page.blobs.len() <= MAX_PAGE);
            paths.extend(page.blobs.into_iter().map(|found| (found.path.to_string(), found.size)));
            if page.next.is_none() {
                return paths;
            }
            after = page.next;
        }
        panic!("a list ends");
    };
    let paths = |found: Vec<(String, u64)>| found.into_iter().map(|(path, _)| path).collect::<Vec<_>>();
    assert_eq!(paths(list("b/").await), ["b/1", "b/2"]);
    assert_eq!(paths(list("b").await), ["b-1", "b/1", "b/2"]);
    assert_eq!(paths(list("z").await), [""; 0]);
    let many = list("many/").await;
    let expected: Vec<_> = (0..BLOBS)
        .map(|number| (format!("many/{number:04}"), (number % 3) as u64))
        .collect();
    assert_eq!(many, expected, "all, in order, once, with their sizes");
    assert_eq!(list("").await.len(), BLOBS + 5);
    assert!(
        ok(blobs.list(&name, "many/", None).await).next.is_some(),
        "a page has at most {MAX_PAGE}"
    );
    ok(blobs.delete_container(&name).await);
}
