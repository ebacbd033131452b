//! What a row can hold: up to which sizes, under which keys, and values of every type, which come back as they were.

use std::collections::BTreeSet;

use super::tables::{Table, key, one};
use super::{malformed, ok, too_large};
use crate::domain::Timestamp;
use crate::store::port::{
    Filter, Key, MAX_PROPERTIES, MAX_PROPERTY_BYTES, Match, Operation, Ports, Properties, Query, Value,
    check_operations,
};

/// What just fits is taken; what just doesn't is refused, before anything is sent.
pub async fn limits_hold_at_the_edge(ports: &Ports, unique: &str) {
    use Operation::Insert;
    let table = Table::new(ports, "Limit", unique).await;
    let insert = |row: &str, properties| vec![Insert(key(row), properties)];

    let text = |units: usize| Value::Text("x".repeat(units));
    ok(table
        .commit("p", insert("text", one(text(MAX_PROPERTY_BYTES / 2))))
        .await);
    too_large(
        table
            .commit("p", insert("text2", one(text(MAX_PROPERTY_BYTES / 2 + 1))))
            .await,
    );
    let bytes = |length: usize| Value::Bytes((0..length).map(|at| (at % 251) as u8).collect());
    ok(table.commit("p", insert("bytes", one(bytes(MAX_PROPERTY_BYTES)))).await);
    too_large(
        table
            .commit("p", insert("bytes2", one(bytes(MAX_PROPERTY_BYTES + 1))))
            .await,
    );
    assert_eq!(
        table.get("p", "bytes").await.map(|row| row.properties),
        Some(one(bytes(MAX_PROPERTY_BYTES)))
    );

    let many = |count: usize| {
        (0..count)
            .map(|at| (format!("p{at}"), Value::Bool(true)))
            .collect::<Properties>()
    };
    ok(table.commit("p", insert("many", many(MAX_PROPERTIES))).await);
    too_large(table.commit("p", insert("many2", many(MAX_PROPERTIES + 1))).await);

    // The largest row that fits, found by the check itself: text, which is half as long on the wire.
    let wide = |last: usize| {
        let full = (0..15).map(|at| (format!("p{at:02}"), text(MAX_PROPERTY_BYTES / 2)));
        full.chain([("z".to_owned(), text(last))]).collect::<Properties>()
    };
    let fits = |last: usize| check_operations(&key("p"), &insert("wide", wide(last))).is_ok();
    let (mut low, mut high) = (0, MAX_PROPERTY_BYTES / 2);
    assert!(fits(low) && !fits(high), "the edge lies between");
    while high - low > 1 {
        let middle = usize::midpoint(low, high);
        if fits(middle) { low = middle } else { high = middle }
    }
    ok(table.commit("p", insert("wide", wide(low))).await);
    too_large(table.commit("p", insert("wide", wide(low + 1))).await);
    assert_eq!(table.get("p", "wide").await.map(|row| row.properties), Some(wide(low)));

    // Two of them and nearly a third fit into one transaction.
    let batch = |third: usize| {
        let mut rows = vec![Insert(key("w1"), wide(low)), Insert(key("w2"), wide(low))];
        rows.extend((0..third).map(|at| Insert(key(&format!("x{at:02}")), one(text(MAX_PROPERTY_BYTES / 2)))));
        rows
    };
    let most = (0..30)
        .take_while(|third| check_operations(&key("p"), &batch(*third)).is_ok())
        .last()
        .unwrap_or(0);
    assert!((10..29).contains(&most), "the edge is met: {most}");
    too_large(table.commit("p", batch(most + 1)).await);
    assert_eq!(
        table.get("p", "w1").await,
        None,
        "nothing of a refused transaction is there"
    );
    assert_eq!(ok(table.commit("p", batch(most)).await).len(), most + 2);

    // Impossible names and values.
    for name in [
        "",
        "a-b",
        "a b",
        "1a",
        "ü",
        "PartitionKey",
        "RowKey",
        "Timestamp",
        "a'b",
    ] {
        malformed(table.commit("p", insert("name", Properties::new().with(name, 1))).await);
    }
    for number in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        malformed(table.commit("p", insert("number", one(Value::Double(number)))).await);
    }
    let long = "k".repeat(512);
    table.insert(&long, &long, one(1)).await;
    assert_eq!(table.get(&long, &long).await.map(|row| row.row), Some(key(&long)));
    for text in [
        "a/b",
        "a\\b",
        "a#b",
        "a?b",
        "a\nb",
        "a\u{7f}",
        &"k".repeat(513),
        &"😀".repeat(257),
    ] {
        malformed(Key::new(text));
    }
    table.drop().await;
}

/// Keys of any allowed text name one row each, in every position.
pub async fn keys_are_never_syntax(ports: &Ports, unique: &str) {
    const KEYS: [&str; 17] = [
        "it's",
        "''",
        "a b",
        " ",
        "ü€",
        "100%",
        "%27",
        "a%2Fb",
        "a+b",
        "a&b=c",
        "a:b;c,d",
        "<x>",
        "(p)",
        "",
        "$x",
        "😀",
        "x') or (RowKey ne '",
    ];
    let table = Table::new(ports, "Keys", unique).await;
    for text in KEYS {
        table.insert(text, text, one(text)).await;
        table.insert("all", text, one(text)).await;
    }
    for text in KEYS {
        let row = table
            .get(text, text)
            .await
            .unwrap_or_else(|| panic!("`{text}` is found"));
        assert_eq!(
            (row.partition, row.row),
            (key(text), key(text)),
            "keys come back as they were"
        );
        assert_eq!(row.properties, one(text));
        assert_eq!(
            table.rows(Query::partition(key(text))).await,
            [text],
            "a partition `{text}` holds its row only"
        );
        let mut from = Query::partition(key("all")).limit(1);
        from.from = Some(key(text));
        assert_eq!(
            table.rows(from.clone()).await.first().map(String::as_str),
            Some(text),
            "a range begins at `{text}`"
        );
        assert_eq!(
            table
                .rows(Query::partition(key("all")).filter(Filter::equal("value", text)))
                .await,
            [text]
        );
        let change = Operation::Merge(key(text), Properties::new().with("more", 1), Match::Exactly(row.etag));
        ok(table.commit(text, vec![change]).await);
    }
    let all: BTreeSet<_> = table.rows(Query::partition(key("all"))).await.into_iter().collect();
    assert_eq!(all, KEYS.iter().map(|&text| text.to_owned()).collect());
    let mut one_by_one = table.rows(Query::partition(key("all")).limit(1)).await;
    one_by_one.sort();
    assert_eq!(
        one_by_one,
        all.into_iter().collect::<Vec<_>>(),
        "a page may end at any key"
    );
    for text in KEYS {
        ok(table.commit(text, vec![Operation::Delete(key(text), Match::Any)]).await);
        assert_eq!(table.get(text, text).await, None);
    }
    assert_eq!(table.rows(Query::partition(key("all"))).await.len(), KEYS.len());
    table.drop().await;
}

/// Every type keeps its type and its value.
pub async fn values_come_back_as_they_were(ports: &Ports, unique: &str) {
    let table = Table::new(ports, "Value", unique).await;
    let values: Vec<Value> = vec![
        "".into(),
        " leading and trailing ".into(),
        "it's \"quoted\" <b>&amp;</b> \\ / \u{1}\t\r\n".into(),
        "ü€😀\u{10ffff}".into(),
        "2026-11-21T00:00:00Z".into(),
        "42".into(),
        "true".into(),
        "null".into(),
        "x".repeat(32 * 1024).into(),
        0.into(),
        (-1).into(),
        i64::MAX.into(),
        i64::MIN.into(),
        9_007_199_254_740_993.into(),
        i64::from(i32::MAX).into(),
        (i64::from(i32::MAX) + 1).into(),
        Value::Double(0.0),
        Value::Double(-0.0),
        Value::Double(2.0),
        Value::Double(-1.5),
        Value::Double(0.1),
        Value::Double(1e300),
        Value::Double(f64::MAX),
        Value::Double(f64::MIN_POSITIVE),
        Value::Double(9_007_199_254_740_992.0),
        true.into(),
        false.into(),
        Timestamp::from_millis(0).into(),
        Timestamp::from_millis(1_795_219_200_123).into(),
        Timestamp::from_millis(1_795_219_200_100).into(),
        Timestamp::from_millis(1_795_219_200_000).into(),
        Timestamp::from_millis(i64::MAX).into(),
        Value::Bytes(Vec::new()),
        Value::Bytes((0..=255).collect()),
        Value::Bytes(vec![0xff; 64 * 1024]),
    ];
    let rows: Vec<_> = values
        .iter()
        .enumerate()
        .map(|(at, value)| (format!("v{at:02}"), value.clone()))
        .collect();
    for (row, value) in &rows {
        table.insert("p", row, one(value.clone())).await;
        assert_eq!(
            table.get("p", row).await.map(|stored| stored.properties),
            Some(one(value.clone())),
            "{row}"
        );
    }
    let stored = table.all(Query::partition(key("p"))).await;
    let expected: Vec<_> = rows.iter().map(|(row, value)| (key(row), one(value.clone()))).collect();
    assert_eq!(
        stored
            .into_iter()
            .map(|row| (row.row, row.properties))
            .collect::<Vec<_>>(),
        expected
    );
    // All in one row, by a transaction, then merged one by one.
    let small = |value: &&(String, Value)| !matches!(&value.1, Value::Text(text) if text.len() > 99);
    let together: Properties = rows.iter().filter(small).cloned().collect();
    ok(table
        .commit(
            "p",
            vec![
                Operation::Upsert(key("together"), together.clone()),
                Operation::Upsert(key("x"), one(1)),
            ],
        )
        .await);
    assert_eq!(
        table.get("p", "together").await.map(|row| row.properties),
        Some(together.clone())
    );
    ok(table
        .commit(
            "p",
            vec![Operation::Merge(
                key("together"),
                Properties::new().with("v10", "other type"),
                Match::Any,
            )],
        )
        .await);
    assert_eq!(
        table.get("p", "together").await.map(|row| row.properties),
        Some(together.with("v10", "other type"))
    );
    table.drop().await;
}
