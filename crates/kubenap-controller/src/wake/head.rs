//! The head of an HTTP/1 request, judged before anything else reads it: what two parsers may read differently is refused.

use std::str;

use super::limits::Limits;

/// Why a head is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// It is not well formed, or can be read in two ways.
    Bad,
    /// A method that must not be passed on.
    Method,
    /// It is too long or has too many fields.
    TooLarge,
    /// It did not arrive in time.
    TooSlow,
}

impl Refusal {
    /// The status as a number.
    pub(crate) fn code(self) -> u16 {
        match self {
            Self::Bad => 400,
            Self::Method => 405,
            Self::TooLarge => 431,
            Self::TooSlow => 408,
        }
    }

    /// The status line that says so.
    pub(crate) fn status(self) -> &'static str {
        match self {
            Self::Bad => "400 Bad Request",
            Self::Method => "405 Method Not Allowed",
            Self::TooLarge => "431 Request Header Fields Too Large",
            Self::TooSlow => "408 Request Timeout",
        }
    }
}

/// Where the head in `bytes` ends, or nothing if it goes on.
pub(crate) fn end_of_head(bytes: &[u8]) -> Option<usize> {
    bytes.windows(4).position(|end| end == b"\r\n\r\n").map(|start| start + 4)
}

/// Whether a line ends with a line feed alone, which some parsers take for an end and some do not.
pub(crate) fn has_bare_line_feed(bytes: &[u8]) -> bool {
    bytes
        .iter()
        .enumerate()
        .any(|(at, byte)| *byte == b'\n' && (at == 0 || bytes.get(at - 1) != Some(&b'\r')))
}

/// Judges the first bytes of an HTTP/1 connection: nothing while the head goes on, then where it ends.
pub(crate) fn look(bytes: &[u8], limits: &Limits) -> Option<Result<usize, Refusal>> {
    let Some(end) = end_of_head(bytes) else {
        return has_bare_line_feed(bytes).then_some(Err(Refusal::Bad));
    };
    let whole = bytes.get(..end).unwrap_or_default();
    Some(match inspect(whole, limits) {
        Ok(()) if end > limits.head_bytes => Err(Refusal::TooLarge),
        Ok(()) => Ok(end),
        Err(refusal) => Err(refusal),
    })
}

/// Judges a whole head, with the empty line at its end.
pub(crate) fn inspect(head: &[u8], limits: &Limits) -> Result<(), Refusal> {
    let mut fields = vec![httparse::EMPTY_HEADER; limits.headers];
    let mut request = httparse::Request::new(&mut fields);
    match request.parse(head) {
        Ok(httparse::Status::Complete(length)) if length == head.len() => {}
        Err(httparse::Error::TooManyHeaders) => return Err(Refusal::TooLarge),
        Ok(_) | Err(_) => return Err(Refusal::Bad),
    }
    if has_bare_line_feed(head) {
        return Err(Refusal::Bad);
    }
    let (Some(method), Some(target), Some(version)) = (request.method, request.path, request.version) else {
        return Err(Refusal::Bad);
    };
    if matches!(method, "CONNECT" | "TRACE") {
        return Err(Refusal::Method);
    }
    // A fragment is no part of a request: some cut it off and some take it for a part of the path.
    let origin_form =
        target.starts_with('/') && target.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#');
    if !(origin_form || target == "*" && method == "OPTIONS") {
        return Err(Refusal::Bad);
    }
    let mut framing = Framing::default();
    for field in request.headers.iter() {
        framing.add(field)?;
    }
    framing.judge(version)
}

/// The fields that say where the request ends and whom it is for.
#[derive(Debug, Default)]
struct Framing {
    hosts: usize,
    lengths: usize,
    codings: usize,
}

impl Framing {
    fn add(&mut self, field: &httparse::Header<'_>) -> Result<(), Refusal> {
        let value = field.value.trim_ascii();
        if field.name.eq_ignore_ascii_case("host") {
            self.hosts += 1;
            let name = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._:[]".contains(byte);
            if !value.iter().all(name) {
                return Err(Refusal::Bad);
            }
        } else if field.name.eq_ignore_ascii_case("content-length") {
            self.lengths += 1;
            let number = str::from_utf8(value).ok().filter(|text| text.bytes().all(|b| b.is_ascii_digit()));
            if number.and_then(|text| text.parse::<u64>().ok()).is_none() {
                return Err(Refusal::Bad);
            }
        } else if field.name.eq_ignore_ascii_case("transfer-encoding") {
            self.codings += 1;
            if !value.eq_ignore_ascii_case(b"chunked") {
                return Err(Refusal::Bad);
            }
        } else if resembles_framing(field.name) {
            return Err(Refusal::Bad);
        }
        Ok(())
    }

    fn judge(&self, version: u8) -> Result<(), Refusal> {
        let hosts = if version == 0 { self.hosts <= 1 } else { self.hosts == 1 };
        let one_end = self.lengths + self.codings <= 1;
        let known_coding = version == 1 || self.codings == 0;
        if hosts && one_end && known_coding { Ok(()) } else { Err(Refusal::Bad) }
    }
}

/// Whether a name is one of the fields above but for signs that some programs drop or take for a dash, such as
/// `Content_Length` or `Transfer-Encoding%`.
fn resembles_framing(name: &str) -> bool {
    let letters = || name.bytes().filter(u8::is_ascii_alphanumeric).map(|byte| byte.to_ascii_lowercase());
    ["host", "contentlength", "transferencoding"].iter().any(|field| letters().eq(field.bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A corpus of heads, those to be accepted first.
    pub(crate) const GOOD: &[&str] = &[
        "GET / HTTP/1.1\r\nHost: web\r\n\r\n",
        "GET /a?b=c HTTP/1.0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: web:8080\r\nContent-Length: 5\r\n\r\n",
        "POST / HTTP/1.1\r\nhost: [::1]:80\r\ntransfer-encoding: Chunked\r\n\r\n",
        "OPTIONS * HTTP/1.1\r\nHost: web\r\n\r\n",
        "PROPFIND / HTTP/1.1\r\nHost: web\r\n\r\n",
    ];

    #[test]
    fn plain_heads_are_accepted() {
        for head in GOOD {
            assert_eq!(inspect(head.as_bytes(), &Limits::default()), Ok(()), "{head:?}");
        }
    }

    #[test]
    fn whatever_can_be_read_in_two_ways_is_refused() {
        for head in [
            "POST / HTTP/1.1\r\nHost: w\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: w\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: w\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: w\r\nContent-Length: 5, 5\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: w\r\nContent-Length: +5\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: w\r\nContent-Length: -1\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: w\r\nContent-Length:\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: w\r\nContent-Length: 99999999999999999999999\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: w\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: w\r\nTransfer-Encoding: xchunked\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: w\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
            "POST / HTTP/1.0\r\nHost: w\r\nTransfer-Encoding: chunked\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: w\r\nTransfer-Encoding : chunked\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: w\r\n Transfer-Encoding: chunked\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: w\r\nX: a\r\n b\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a@b\r\n\r\n",
            "GET / HTTP/1.1\r\n\r\n",
            "GET http://evil.example/ HTTP/1.1\r\nHost: w\r\n\r\n",
            "GET evil.example HTTP/1.1\r\nHost: w\r\n\r\n",
            "GET * HTTP/1.1\r\nHost: w\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: w\nX: y\r\n\r\n",
            "GET / HTTP/1.1\nHost: w\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: w\r\nX: a\0b\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: w\r\nX: a\rb\r\n\r\n",
            "GET  / HTTP/1.1\r\nHost: w\r\n\r\n",
            "GET /a b HTTP/1.1\r\nHost: w\r\n\r\n",
            "GET /caf\u{e9} HTTP/1.1\r\nHost: w\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: w\r\n: y\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: w\r\nno colon\r\n\r\n",
        ] {
            assert_eq!(inspect(head.as_bytes(), &Limits::default()), Err(Refusal::Bad), "{head:?}");
        }
        for head in ["CONNECT w:80 HTTP/1.1\r\nHost: w\r\n\r\n", "TRACE / HTTP/1.1\r\nHost: w\r\n\r\n"] {
            assert_eq!(inspect(head.as_bytes(), &Limits::default()), Err(Refusal::Method), "{head:?}");
        }
        let many = format!("GET / HTTP/1.1\r\nHost: w\r\n{}\r\n", "X: y\r\n".repeat(100));
        assert_eq!(inspect(many.as_bytes(), &Limits::default()), Err(Refusal::TooLarge));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            inspect(&bytes, &Limits::default()).ok();
        }

        #[test]
        fn no_accepted_head_has_two_ends(at in 0usize..60, byte in any::<u8>(), which in 0usize..6) {
            let mut head = GOOD[which].as_bytes().to_vec();
            let at = at % head.len();
            head[at] = byte;
            if inspect(&head, &Limits::default()).is_ok() {
                prop_assert_eq!(end_of_head(&head), Some(head.len()));
                prop_assert!(!has_bare_line_feed(&head));
            }
        }
    }
}
