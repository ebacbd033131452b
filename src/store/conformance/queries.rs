//! Queries: ranges, pages and continuations, comparisons of every type, and what is refused because it is no query.

use super::tables::{Table, key, one};
use super::{malformed, ok};
use crate::domain::Timestamp;
use crate::store::error::Error;
use crate::store::port::{
    Comparison, Continuation, Filter, MAX_PAGE, Match, Operation, Ports, Properties, Query, Value,
};

/// 2 500 rows: order, ranges, prefixes, limits, pages and continuations.
pub async fn ranges_and_pages(ports: &Ports, unique: &str) {
    const ROWS: usize = 2500;
    let table = Table::new(ports, "Range", unique).await;
    let name = |row: usize| format!("r{row:05}");
    for start in (0..ROWS).step_by(50) {
        let insert = |row| {
            let number = i64::try_from(row).unwrap_or_default();
            Operation::Insert(
                key(&name(row)),
                Properties::new()
                    .with("number", number)
                    .with("even", row % 2 == 0)
                    .with("text", "x"),
            )
        };
        ok(table.commit("p", (start..start + 50).map(insert).collect()).await);
    }
    table.insert("o", "r00000", one(1)).await;
    table.insert("q", "r00000", one(1)).await;
    let names = |range: std::ops::Range<usize>| range.map(name).collect::<Vec<_>>();
    let p = || Query::partition(key("p"));

    let first = ok(table.query(p()).await);
    assert!(!first.entities.is_empty() && first.entities.len() <= MAX_PAGE);
    assert!(first.next.is_some(), "there is more than a page");
    assert_eq!(table.rows(p()).await, names(0..ROWS), "all rows, in order, once");
    assert_eq!(table.rows(p().limit(7)).await, names(0..ROWS));
    let page = ok(table.query(p().limit(10)).await);
    assert_eq!(
        page.entities.iter().map(|row| row.row.to_string()).collect::<Vec<_>>(),
        names(0..10)
    );
    let page = ok(table.query(p().limit(5).after(page.next)).await);
    assert_eq!(
        page.entities.iter().map(|row| row.row.to_string()).collect::<Vec<_>>(),
        names(10..15)
    );

    let range = |from: usize, until: usize| {
        let mut query = p();
        (query.from, query.until) = (Some(key(&name(from))), Some(key(&name(until))));
        query
    };
    assert_eq!(
        table.rows(range(1200, 1210)).await,
        names(1200..1210),
        "from is included, until is not"
    );
    assert_eq!(table.rows(range(1200, 1210).limit(3)).await, names(1200..1210));
    assert_eq!(table.rows(range(1210, 1200)).await, [""; 0]);
    assert_eq!(table.rows(range(1200, 1200)).await, [""; 0]);
    assert_eq!(table.rows(range(2490, 9999)).await, names(2490..ROWS));
    assert_eq!(table.rows(ok(p().prefix("r001"))).await, names(100..200));
    assert_eq!(table.rows(ok(p().prefix("r0010"))).await, names(100..110));
    assert_eq!(table.rows(ok(p().prefix("s"))).await, [""; 0]);
    assert_eq!(table.rows(ok(p().prefix(""))).await, names(0..ROWS));

    // A condition that matches little goes through all pages.
    assert_eq!(
        table.rows(p().filter(Filter::equal("number", 2499))).await,
        [name(2499)]
    );
    let even = table.rows(p().filter(Filter::equal("even", true)).limit(100)).await;
    assert_eq!(even, (0..ROWS).step_by(2).map(name).collect::<Vec<_>>());

    // Only what is selected.
    let mut select = range(0, 2);
    select.select = vec!["number".into(), "missing".into()];
    let selected = table.all(select).await;
    assert_eq!(
        selected.iter().map(|row| row.row.clone()).collect::<Vec<_>>(),
        [key(&name(0)), key(&name(1))]
    );
    assert_eq!(
        selected[1].properties,
        Properties::new().with("number", 1),
        "a missing property is no property"
    );
    assert!(!selected[1].etag.0.is_empty(), "a selected row has its ETag");

    // What isn't a continuation is refused, or at the worst stays in the partition.
    let page = ok(table.query(p().limit(10)).await);
    let Continuation(good) = page.next.unwrap_or_else(|| panic!("there is more"));
    for text in ["", "x", "!", "YQ==", &format!("{good}x"), &good[1..]] {
        match table
            .query(p().limit(10).after(Some(Continuation(text.to_owned()))))
            .await
        {
            Err(Error::Malformed { .. }) => {}
            Ok(page) => assert!(
                page.entities.iter().all(|row| row.partition == key("p")),
                "no other partition"
            ),
            Err(error) => panic!("a garbled continuation is malformed: {error:?}"),
        }
    }
    let elsewhere = table
        .query(Query::partition(key("q")).after(Some(Continuation(good))))
        .await;
    if let Ok(page) = elsewhere {
        assert!(
            page.entities.iter().all(|row| row.partition == key("q")),
            "a continuation leads to no other partition"
        );
    }
    table.drop().await;
}

/// Each comparison on each type, `and`, `or`, and rows without the property.
pub async fn filters_of_every_type(ports: &Ports, unique: &str) {
    use Comparison::{Equal, Greater, GreaterOrEqual, Less, LessOrEqual, NotEqual};
    let table = Table::new(ports, "Filter", unique).await;
    let at = |millis: i64| Value::Time(Timestamp::from_millis(1_795_219_200_000 + millis));
    // For each type three values in order.
    let types: [(&str, [Value; 3]); 5] = [
        ("text", ["apple".into(), "banana".into(), "cherry".into()]),
        ("int", [i64::MIN.into(), 3.into(), i64::MAX.into()]),
        ("double", [Value::Double(-1.5), Value::Double(2.0), Value::Double(2.5)]),
        ("time", [at(0), at(1), at(1000)]),
        ("small", [(-2).into(), 0.into(), 7.into()]),
    ];
    for row in 0..3 {
        let properties: Properties = types
            .iter()
            .map(|(name, values)| ((*name).to_owned(), values[row].clone()))
            .collect();
        let properties = properties
            .with("truth", row == 1)
            .with("bytes", Value::Bytes(vec![0, 0xff, row as u8]));
        table
            .insert(
                "p",
                &row.to_string(),
                properties.with("unicode", ["ü€", "😀", "it's"][row]),
            )
            .await;
    }
    table.insert("p", "without", Properties::new().with("other", 1)).await;
    let rows = |filter: Filter| table.rows(Query::partition(key("p")).filter(filter));
    let is = |name: &str, comparison, value: &Value| Filter::Is(name.to_owned(), comparison, value.clone());

    for (name, values) in &types {
        let middle = &values[1];
        assert_eq!(rows(is(name, Equal, middle)).await, ["1"], "{name} equal");
        assert_eq!(
            rows(is(name, NotEqual, middle)).await,
            ["0", "2"],
            "{name} not equal; without it never matches"
        );
        assert_eq!(rows(is(name, Less, middle)).await, ["0"], "{name} less");
        assert_eq!(
            rows(is(name, LessOrEqual, middle)).await,
            ["0", "1"],
            "{name} less or equal"
        );
        assert_eq!(rows(is(name, Greater, middle)).await, ["2"], "{name} greater");
        assert_eq!(
            rows(is(name, GreaterOrEqual, middle)).await,
            ["1", "2"],
            "{name} greater or equal"
        );
        assert_eq!(
            rows(is(name, Equal, &values[0])).await,
            ["0"],
            "{name} equal to the least"
        );
        assert_eq!(
            rows(is(name, Equal, &values[2])).await,
            ["2"],
            "{name} equal to the greatest"
        );
    }
    assert_eq!(rows(Filter::equal("truth", true)).await, ["1"]);
    assert_eq!(rows(Filter::equal("truth", false)).await, ["0", "2"]);
    assert_eq!(rows(is("truth", NotEqual, &true.into())).await, ["0", "2"]);
    assert_eq!(
        rows(Filter::equal("bytes", Value::Bytes(vec![0, 0xff, 1]))).await,
        ["1"]
    );
    for (row, text) in [("0", "ü€"), ("1", "😀"), ("2", "it's")] {
        assert_eq!(rows(Filter::equal("unicode", text)).await, [row], "{text}");
    }
    // Another type is another value.
    assert_eq!(rows(Filter::equal("text", 3)).await, [""; 0]);
    assert_eq!(rows(Filter::equal("truth", "true")).await, [""; 0]);
    assert_eq!(rows(Filter::equal("missing", "")).await, [""; 0]);

    let apple = || Filter::equal("text", "apple");
    let three = || Filter::equal("int", 3);
    let truth = || Filter::equal("truth", true);
    assert_eq!(rows(apple().or(three())).await, ["0", "1"]);
    assert_eq!(rows(apple().and(three())).await, [""; 0]);
    assert_eq!(rows(three().and(truth())).await, ["1"]);
    assert_eq!(rows(apple().or(three().and(truth()))).await, ["0", "1"]);
    assert_eq!(rows(apple().or(three()).and(truth())).await, ["1"], "nesting is kept");
    assert_eq!(rows(truth().and(apple().or(three()))).await, ["1"], "nesting is kept");
    assert_eq!(rows(Filter::equal("other", 1).or(apple())).await, ["0", "without"]);
    let many = (0..14)
        .map(|n| Filter::equal("int", n))
        .reduce(Filter::or)
        .unwrap_or_else(three);
    assert_eq!(rows(many).await, ["1"]);
    table.drop().await;
}

/// A value is a value, whatever it looks like.
pub async fn filters_are_never_syntax(ports: &Ports, unique: &str) {
    const TRICKS: [&str; 6] = [
        "x' or PartitionKey ne '",
        "x' or 1 eq 1 or value eq '",
        "' or true or '",
        "%27 or PartitionKey ne %27",
        "x'&$top=1000&$filter=value ne '",
        "x\u{2019} or PartitionKey ne \u{2019}",
    ];
    let table = Table::new(ports, "Trick", unique).await;
    table.insert("p", "r", one("x")).await;
    table.insert("other", "r", one("x")).await;
    for trick in TRICKS {
        let rows = table
            .rows(Query::partition(key("p")).filter(Filter::equal("value", trick)))
            .await;
        assert_eq!(rows, [""; 0], "`{trick}` matches nothing");
        assert_eq!(
            table.rows(Query::partition(key(trick))).await,
            [""; 0],
            "`{trick}` is no partition"
        );
        let mut range = Query::partition(key("p"));
        range.from = Some(key(trick));
        range.until = Some(key(trick));
        assert_eq!(table.rows(range).await, [""; 0], "`{trick}` is an empty range");
        table.insert("p", "trick", one(trick)).await;
        assert_eq!(
            table
                .rows(Query::partition(key("p")).filter(Filter::equal("value", trick)))
                .await,
            ["trick"]
        );
        ok(table
            .commit("p", vec![Operation::Delete(key("trick"), Match::Any)])
            .await);
    }
    table.drop().await;
}

/// Limits out of range, and names that are none, in filter and selection.
pub async fn impossible_queries_are_refused(ports: &Ports, unique: &str) {
    let table = Table::new(ports, "Query", unique).await;
    let p = || Query::partition(key("p"));
    malformed(table.query(p().limit(0)).await);
    malformed(table.query(p().limit(MAX_PAGE + 1)).await);
    for name in ["", "a b", "a eq 1 or b", "PartitionKey", "RowKey", "a'", "a,b"] {
        malformed(table.query(p().filter(Filter::equal(name, 1))).await);
        malformed(
            table
                .query(p().filter(Filter::equal("fine", 1).or(Filter::equal(name, 1))))
                .await,
        );
        let mut select = p();
        select.select = vec![name.to_owned()];
        malformed(table.query(select).await);
    }
    malformed(
        table
            .query(p().filter(Filter::equal("value", Value::Double(f64::NAN))))
            .await,
    );
    table.drop().await;
}
