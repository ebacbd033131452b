//! Writes to tables: what each operation does and under which condition, and that those of a transaction happen together
//! or not at all, also where many write at once.

use super::tables::{Table, key, one};
use super::{exists_already, in_tasks, malformed, ok, precondition_failed, too_large};
use crate::store::error::Error;
use crate::store::port::{ETag, MAX_BATCH_OPERATIONS, Match, Operation, Ports, Properties, Query};

/// Insert, replace, merge, upsert and delete, each where it succeeds and where it must not.
pub async fn rows_are_written_under_conditions(ports: &Ports, unique: &str) {
    use Operation::{Delete, Insert, Merge, Replace, Upsert};
    let table = Table::new(ports, "Write", unique).await;
    let r = || key("r");
    let two = || Properties::new().with("a", 1).with("b", "x");

    let first = table.insert("p", "r", two()).await;
    let stored = table
        .get("p", "r")
        .await
        .unwrap_or_else(|| panic!("the row was inserted"));
    assert_eq!((&stored.partition, &stored.row), (&key("p"), &r()));
    assert_eq!(stored.etag, first, "a commit answers the ETag that a read gives");
    assert_eq!(stored.properties, two());
    exists_already(table.commit("p", vec![Insert(r(), one(2))]).await, 0);

    // Merge: the given ones are set, the others stay.
    let second = ok(table
        .commit(
            "p",
            vec![Merge(
                r(),
                Properties::new().with("a", 2),
                Match::Exactly(first.clone()),
            )],
        )
        .await);
    let stored = table.get("p", "r").await.unwrap_or_else(|| panic!("the row is there"));
    assert_eq!(stored.properties, Properties::new().with("a", 2).with("b", "x"));
    assert_eq!((second.len(), &second[0]), (1, &stored.etag));
    assert_ne!(second[0], first, "each write has an ETag of its own");

    // An old version fits nothing.
    precondition_failed(
        table
            .commit("p", vec![Merge(r(), one(3), Match::Exactly(first.clone()))])
            .await,
        0,
    );
    precondition_failed(
        table
            .commit("p", vec![Replace(r(), one(3), Match::Exactly(first.clone()))])
            .await,
        0,
    );
    precondition_failed(
        table
            .commit("p", vec![Delete(r(), Match::Exactly(first.clone()))])
            .await,
        0,
    );
    assert_eq!(table.get("p", "r").await, Some(stored), "what failed left no trace");

    // Replace: nothing else stays.
    let third = ok(table
        .commit("p", vec![Replace(r(), one(4), Match::Exactly(second[0].clone()))])
        .await);
    let fourth = ok(table.commit("p", vec![Replace(r(), one(4), Match::Any)]).await);
    assert_ne!(third, fourth, "the same content written again is a new version");
    assert_eq!(table.get("p", "r").await.map(|row| row.properties), Some(one(4)));
    ok(table.commit("p", vec![Merge(r(), Properties::new(), Match::Any)]).await);
    assert_eq!(table.get("p", "r").await.map(|row| row.properties), Some(one(4)));

    // Upsert replaces whole, and inserts.
    ok(table
        .commit("p", vec![Upsert(r(), Properties::new().with("other", true))])
        .await);
    assert_eq!(
        table.get("p", "r").await.map(|row| row.properties),
        Some(Properties::new().with("other", true))
    );
    let inserted = ok(table.commit("p", vec![Upsert(key("s"), one(5))]).await);
    assert_eq!(table.get("p", "s").await.map(|row| row.etag), Some(inserted[0].clone()));

    // Delete; then every condition fails.
    assert_eq!(
        ok(table
            .commit("p", vec![Delete(key("s"), Match::Exactly(inserted[0].clone()))])
            .await),
        [ETag(String::new())]
    );
    assert_eq!(table.get("p", "s").await, None);
    for condition in [Match::Any, Match::Exactly(inserted[0].clone())] {
        precondition_failed(table.commit("p", vec![Delete(key("s"), condition.clone())]).await, 0);
        precondition_failed(
            table
                .commit("p", vec![Merge(key("s"), one(6), condition.clone())])
                .await,
            0,
        );
        precondition_failed(table.commit("p", vec![Replace(key("s"), one(6), condition)]).await, 0);
    }
    assert_eq!(table.get("p", "s").await, None);

    // The ETag of a deleted row doesn't fit the row that is inserted in its place.
    let again = table.insert("p", "s", one(5)).await;
    assert_ne!(again, inserted[0]);
    precondition_failed(
        table
            .commit("p", vec![Delete(key("s"), Match::Exactly(inserted[0].clone()))])
            .await,
        0,
    );
    ok(table.commit("p", vec![Delete(key("s"), Match::Any)]).await);

    // A row may have no properties at all.
    table.insert("p", "bare", Properties::new()).await;
    assert_eq!(
        table.get("p", "bare").await.map(|row| row.properties),
        Some(Properties::new())
    );
    table.drop().await;
}

/// One operation that fails undoes the others, and is named.
pub async fn batches_are_all_or_nothing(ports: &Ports, unique: &str) {
    use Operation::{Delete, Insert, Merge, Replace, Upsert};
    let table = Table::new(ports, "Batch", unique).await;
    let old = table.insert("p", "there", one(1)).await;
    let before = table.all(Query::partition(key("p"))).await;

    type Expected = fn(Result<Vec<ETag>, Error>, usize);
    let failing: [(Operation, Expected); 5] = [
        (Insert(key("there"), one(9)), exists_already),
        (
            Replace(key("there"), one(9), Match::Exactly(ETag("none".into()))),
            precondition_failed,
        ),
        (Merge(key("gone"), one(9), Match::Any), precondition_failed),
        (Delete(key("gone"), Match::Exactly(old.clone())), precondition_failed),
        (Replace(key("gone"), one(9), Match::Any), precondition_failed),
    ];
    for (operation, expected) in failing {
        for at in 0..3 {
            let mut batch = vec![Insert(key("a"), one(1)), Upsert(key("b"), one(2))];
            batch.insert(at, operation.clone());
            expected(table.commit("p", batch).await, at);
        }
    }
    assert_eq!(
        table.all(Query::partition(key("p"))).await,
        before,
        "nothing of the failed batches is there"
    );

    let batch = vec![
        Insert(key("a"), one(1)),
        Upsert(key("b"), one(2)),
        Merge(key("there"), Properties::new().with("more", true), Match::Exactly(old)),
    ];
    let etags = ok(table.commit("p", batch).await);
    let stored = table.all(Query::partition(key("p"))).await;
    assert_eq!(
        stored.iter().map(|row| row.etag.clone()).collect::<Vec<_>>(),
        etags,
        "ETags in the order of operations"
    );
    let batch = vec![
        Delete(key("a"), Match::Exactly(etags[0].clone())),
        Replace(key("b"), one(3), Match::Exactly(etags[1].clone())),
        Delete(key("there"), Match::Any),
    ];
    let etags = ok(table.commit("p", batch).await);
    assert_eq!(
        (etags[0].0.as_str(), etags[2].0.as_str()),
        ("", ""),
        "a delete has an empty ETag"
    );
    assert_eq!(table.rows(Query::partition(key("p"))).await, ["b"]);

    malformed(table.commit("p", Vec::new()).await);
    malformed(
        table
            .commit("p", vec![Insert(key("x"), one(1)), Upsert(key("x"), one(2))])
            .await,
    );

    let rows = |count: usize| {
        (0..count)
            .map(|row| Insert(key(&format!("m{row:03}")), one(1)))
            .collect::<Vec<_>>()
    };
    too_large(table.commit("q", rows(MAX_BATCH_OPERATIONS + 1)).await);
    assert_eq!(table.rows(Query::partition(key("q"))).await, [""; 0]);
    assert_eq!(
        ok(table.commit("q", rows(MAX_BATCH_OPERATIONS)).await).len(),
        MAX_BATCH_OPERATIONS
    );
    assert_eq!(table.rows(Query::partition(key("q"))).await.len(), MAX_BATCH_OPERATIONS);
    table.drop().await;
}

/// Tasks that count together by ETag lose nothing.
pub async fn increments_are_exact(ports: &Ports, unique: &str) {
    const TASKS: i64 = 8;
    const EACH: i64 = 12;
    let table = Table::new(ports, "Count", unique).await;
    table.insert("p", "counter", one(0)).await;
    in_tasks(TASKS, |_| {
        let (ports, name) = (ports.clone(), table.name.clone());
        async move {
            let mut done = 0;
            for _ in 0..10_000 {
                let stored = ok(ports.tables.get(&name, &key("p"), &key("counter")).await);
                let stored = stored.unwrap_or_else(|| panic!("the counter is there"));
                let next = ok(stored.properties.int("value")).unwrap_or_default() + 1;
                let write = vec![Operation::Replace(
                    key("counter"),
                    one(next),
                    Match::Exactly(stored.etag),
                )];
                match ports.tables.commit(&name, &key("p"), write).await {
                    Ok(_) => done += 1,
                    Err(Error::PreconditionFailed { .. }) => {}
                    Err(error) => panic!("only a conflict may fail an increment: {error}"),
                }
                if done == EACH {
                    return;
                }
            }
            panic!("a task gets through");
        }
    })
    .await;
    let counter = table.get("p", "counter").await.map(|row| row.properties);
    assert_eq!(
        counter,
        Some(one(TASKS * EACH)),
        "no increment is lost and none counts twice"
    );
    table.drop().await;
}

/// Of batches that fight for one row, exactly one wins, whole.
pub async fn batches_stay_atomic_under_contention(ports: &Ports, unique: &str) {
    const ROUNDS: i64 = 5;
    let table = Table::new(ports, "Fight", unique).await;
    in_tasks(8, |task| {
        let (ports, name) = (ports.clone(), table.name.clone());
        async move {
            for round in 0..ROUNDS {
                let rows = ["a", "z"].map(|part| Operation::Insert(key(&format!("{round}-{task}-{part}")), one(task)));
                let mut batch = rows.to_vec();
                batch.insert(1, Operation::Insert(key(&format!("{round}-win")), one(task)));
                match ports.tables.commit(&name, &key("p"), batch).await {
                    Ok(_) | Err(Error::AlreadyExists { index: 1, .. }) => {}
                    Err(error) => panic!("only the contended row may fail: {error:?}"),
                }
            }
        }
    })
    .await;
    for round in 0..ROUNDS {
        let winner = table
            .get("p", &format!("{round}-win"))
            .await
            .unwrap_or_else(|| panic!("somebody wins"));
        let winner = ok(winner.properties.int("value")).unwrap_or_default();
        let rows = table
            .rows(ok(Query::partition(key("p")).prefix(&format!("{round}-"))))
            .await;
        assert_eq!(
            rows,
            [
                format!("{round}-{winner}-a"),
                format!("{round}-{winner}-z"),
                format!("{round}-win")
            ]
        );
    }
    table.drop().await;
}
