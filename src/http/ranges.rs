//! Which bytes of something a request asks for: `Range`, `If-Range` and `If-None-Match` (RFC 9110, sections 13 and 14).

use std::ops::Range;

use axum::http::{HeaderMap, HeaderName, Method, header};

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asked {
    /// Nothing: the caller has it.
    Nothing,
    /// All of it.
    Whole,
    /// A part, which is not empty and within it.
    Part(Range<u64>),
    /// A part that lies behind its end.
    Beyond,
}

/// What a request asks for of something with this strong `ETag` and size. A range that can't be read, of another unit, or more than
/// one, is passed over, as the RFC has it; and one of any method but GET, for which alone it defines them.
#[must_use]
pub fn asked(method: &Method, headers: &HeaderMap, etag: &str, size: u64) -> Asked {
    let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    if text(header::IF_NONE_MATCH).is_some_and(|tags| has(tags, etag)) {
        return Asked::Nothing;
    }
    let counts = method == Method::GET && text(header::IF_RANGE).is_none_or(|tag| tag.trim() == etag);
    match text(header::RANGE).filter(|_| counts) {
        Some(range) => read(range, size).unwrap_or(Asked::Whole),
        None => Asked::Whole,
    }
}

fn has(tags: &str, etag: &str) -> bool {
    tags.split(',')
        .map(str::trim)
        .any(|tag| tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == etag)
}

fn read(range: &str, size: u64) -> Option<Asked> {
    let (unit, spec) = range.trim().split_once('=')?;
    if !unit.trim().eq_ignore_ascii_case("bytes") || spec.contains(',') {
        return None;
    }
    let (first, last) = spec.trim().split_once('-')?;
    let number = |text: &str| {
        let text = text.trim();
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        // One that is too large lies behind every end.
        digits.then(|| text.parse().unwrap_or(u64::MAX))
    };
    let part = match (first.trim(), last.trim()) {
        ("", last) => {
            let length = number(last)?;
            size.saturating_sub(length)..if length == 0 { 0 } else { size }
        }
        (first, "") => number(first)?..size,
        (first, last) => {
            let (first, last) = (number(first)?, number(last)?);
            if last < first {
                return None;
            }
            first..last.saturating_add(1).min(size)
        }
    };
    Some(if part.start >= part.end {
        Asked::Beyond
    } else {
        Asked::Part(part)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ETAG: &str = "\"abc\"";

    fn with(pairs: &[(HeaderName, &str)], size: u64) -> Asked {
        let pairs = pairs.iter().map(|(name, value)| (name.clone(), value.parse().unwrap()));
        asked(&Method::GET, &pairs.collect(), ETAG, size)
    }

    #[test]
    fn ranges_are_read_as_the_rfc_has_it() {
        for (range, expected) in [
            ("bytes=0-0", Asked::Part(0..1)),
            ("bytes=0-9", Asked::Part(0..10)),
            ("Bytes = 5-", Asked::Part(5..10)),
            ("bytes=5-99999999999999999999", Asked::Part(5..10)),
            ("bytes=-3", Asked::Part(7..10)),
            ("bytes=-30", Asked::Part(0..10)),
            ("bytes=10-", Asked::Beyond),
            ("bytes=10-12", Asked::Beyond),
            ("bytes=99999999999999999999-", Asked::Beyond),
            ("bytes=-0", Asked::Beyond),
            ("bytes=5-4", Asked::Whole),
            ("bytes=0-1,3-4", Asked::Whole),
            ("bytes=a-b", Asked::Whole),
            ("bytes=+1-2", Asked::Whole),
            ("bytes=-", Asked::Whole),
            ("bytes", Asked::Whole),
            ("items=0-1", Asked::Whole),
        ] {
            assert_eq!(with(&[(header::RANGE, range)], 10), expected, "{range}");
        }
        assert_eq!(with(&[(header::RANGE, "bytes=0-")], 0), Asked::Beyond);
        assert_eq!(with(&[], 0), Asked::Whole);
    }

    #[test]
    fn conditions_go_by_the_etag() {
        let range = (header::RANGE, "bytes=0-1");
        for (tag, expected) in [
            (ETAG, Asked::Part(0..2)),
            ("\"other\"", Asked::Whole),
            ("W/\"abc\"", Asked::Whole),
            ("Sat, 29 Oct 2025 19:43:31 GMT", Asked::Whole),
        ] {
            assert_eq!(with(&[range.clone(), (header::IF_RANGE, tag)], 10), expected, "{tag}");
        }
        for (tags, expected) in [
            (ETAG, Asked::Nothing),
            ("\"x\", W/\"abc\"", Asked::Nothing),
            ("*", Asked::Nothing),
            ("\"x\"", Asked::Part(0..2)),
        ] {
            let headers = [range.clone(), (header::IF_NONE_MATCH, tags)];
            assert_eq!(with(&headers, 10), expected, "{tags}");
        }
    }

    #[test]
    fn ranges_are_for_get_only() {
        let headers = |pairs: &[(HeaderName, &str)]| {
            let pairs = pairs.iter().map(|(name, value)| (name.clone(), value.parse().unwrap()));
            pairs.collect::<HeaderMap>()
        };
        for range in ["bytes=0-1", "bytes=10-"] {
            let headers = headers(&[(header::RANGE, range)]);
            assert_eq!(asked(&Method::HEAD, &headers, ETAG, 10), Asked::Whole, "{range}");
        }
        let known = headers(&[(header::IF_NONE_MATCH, ETAG)]);
        assert_eq!(asked(&Method::HEAD, &known, ETAG, 10), Asked::Nothing);
    }
}
