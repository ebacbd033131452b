//! Where in a file a pointer leads to.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::value::RawValue;

/// Line and column, from 1, of what a pointer leads to, or of the nearest thing around it that is there. In a file that is no
/// JSON, of the mistake.
#[must_use]
pub fn place_of(text: &str, pointer: &str) -> (usize, usize) {
    let Ok(whole) = serde_json::from_str::<&RawValue>(text) else {
        let error = serde_json::from_str::<serde::de::IgnoredAny>(text).err();
        return error.map_or((1, 1), |error| (error.line().max(1), error.column().max(1)));
    };
    let mut at = whole.get();
    let mut is_nodes = false;
    for (depth, segment) in pointer.split('/').skip(1).enumerate() {
        let segment = segment.replace("~1", "/").replace("~0", "~");
        match inside(at, &segment, is_nodes) {
            Some(next) => at = next,
            None => break,
        }
        is_nodes = depth == 0 && segment == "nodes";
    }
    let offset = at.as_ptr().addr() - text.as_ptr().addr();
    let before = &text[..offset.min(text.len())];
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    (line, column)
}

#[derive(Deserialize)]
struct Named {
    id: String,
}

/// What stands under a name, or at a place; a node is found by its id.
fn inside<'a>(at: &'a str, segment: &str, is_nodes: bool) -> Option<&'a str> {
    if at.starts_with('{') {
        let members: BTreeMap<String, &RawValue> = serde_json::from_str(at).ok()?;
        return members.get(segment).map(|value| value.get());
    }
    let items: Vec<&RawValue> = serde_json::from_str(at).ok()?;
    let numbered = segment.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let index = match numbered {
        Some(number) => number.parse().ok()?,
        None => {
            let is_it = |item: &&RawValue| {
                let named = serde_json::from_str::<Named>(item.get());
                named.is_ok_and(|named| named.id == segment)
            };
            let by_id = items.iter().position(|item| is_nodes && is_it(item));
            by_id.or_else(|| segment.parse().ok())?
        }
    };
    items.get::<usize>(index).map(|value| value.get())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pointers_lead_to_lines_and_columns() {
        let text = "{\n  \"name\": \"a\",\n  \"nodes\": [\n    {\"id\": \"x\", \"use\": 7},\n    {\"ä\": [1, {\"b/c\": 2}]}\n  ]\n}\n";
        assert_eq!(place_of(text, ""), (1, 1));
        assert_eq!(place_of(text, "/name"), (2, 11));
        assert_eq!(place_of(text, "/nodes/x/use"), (4, 24));
        // What is missing: around it.
        assert_eq!(place_of(text, "/nodes/x/inputs"), (4, 5));
        assert_eq!(place_of(text, "/nodes/1/ä/1/b~1c"), (5, 23));
        assert_eq!(place_of(text, "/nodes/[1]/ä/1/b~1c"), (5, 23));
        let numbers = "{\"nodes\": [\n{},\n{\"id\": \"0\"}]}";
        assert_eq!(place_of(numbers, "/nodes/0"), (3, 1), "an id goes before a place");
        assert_eq!(place_of(numbers, "/nodes/[0]"), (2, 1));
        assert_eq!(place_of("\n  7", "/nodes"), (2, 3));
        assert_eq!(place_of("{\n \"a\": }", ""), (2, 7));
    }
}
