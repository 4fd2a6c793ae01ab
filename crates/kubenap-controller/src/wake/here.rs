//! Who answers at the wake address: a question that only a member of KubeNap can answer, and that wakes nothing.

use std::collections::BTreeSet;
use std::hash::{BuildHasher as _, RandomState};

use http::{HeaderName, HeaderValue, Request, Response, StatusCode};

use super::reply::{self, WakeBody};

/// The path of the question; an app's own requests lack its header.
const PATH: &str = "/.kubenap/here";
/// Carries what the answer must rest on.
const NONCE: HeaderName = HeaderName::from_static("kubenap-nonce");
/// Carries the answer.
const PROOF: HeaderName = HeaderName::from_static("kubenap-proof");
/// The length of a nonce, in hexadecimal digits.
const LENGTH: usize = 32;

/// A question that nobody asked before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Question {
    nonce: String,
}

impl Question {
    /// A fresh one.
    pub(crate) fn new() -> Self {
        // The standard library seeds its hashers at random.
        let half = || RandomState::new().hash_one(NONCE.as_str());
        Self { nonce: format!("{:016x}{:016x}", half(), half()) }
    }

    /// As it is sent to `host`.
    pub(crate) fn text(&self, host: &str) -> String {
        let Self { nonce } = self;
        format!(
            "GET {PATH} HTTP/1.1\r\nHost: {host}\r\n{NONCE}: {nonce}\r\nUser-Agent: kubenap-probe/\r\nConnection: close\r\n\r\n"
        )
    }

    /// Which of these members gave this answer, from the status line to the end of its head.
    pub(crate) fn answered_by<'a>(&self, answer: &str, members: &'a BTreeSet<String>) -> Option<&'a str> {
        let mut lines = answer.split("\r\n");
        let status = lines.next()?.split(' ').nth(1)?;
        let told = lines.find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case(PROOF.as_str()).then(|| value.trim())
        })?;
        let gave = |member: &&String| proof(member, &self.nonce) == told;
        members.iter().find(gave).filter(|_| status == "200").map(String::as_str)
    }
}

/// The answer of the member called `identity`, where a request is the question.
pub(crate) fn answer<B>(request: &Request<B>, identity: &str) -> Option<Response<WakeBody>> {
    let nonce = request.headers().get(NONCE)?.to_str().ok()?;
    let asked = request.method() == "GET" && request.uri().path() == PATH;
    let sound = nonce.len() == LENGTH && nonce.bytes().all(|digit| digit.is_ascii_hexdigit());
    let proof = HeaderValue::from_str(&proof(identity, nonce)).ok().filter(|_| asked && sound)?;
    let mut response = reply::text(StatusCode::OK, "KubeNap");
    response.headers_mut().insert(PROOF, proof);
    Some(response)
}

/// What only somebody who goes by this name says to this nonce. Names of members are no secret: it tells them apart from
/// other programs and other installations, not from somebody who wants to be taken for one. FNV-1a: the same in every
/// version that members run.
fn proof(identity: &str, nonce: &str) -> String {
    let bytes = identity.bytes().chain([0xFF]).chain(nonce.bytes());
    let hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("{hash:016x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(method: &str, path: &str, nonce: &str) -> Request<()> {
        Request::builder().method(method).uri(path).header(NONCE, nonce).body(()).unwrap()
    }

    fn head(response: &Response<WakeBody>) -> String {
        let proof = response.headers()[PROOF].to_str().unwrap();
        format!("HTTP/1.1 {} OK\r\nKubeNap-Proof: {proof}\r\n\r\n", response.status().as_u16())
    }

    #[test]
    fn only_a_living_member_answers_the_question_that_was_asked() {
        let (question, other) = (Question::new(), Question::new());
        assert_ne!(question, other);
        let members = BTreeSet::from(["kubenap-0".to_owned(), "kubenap-1".to_owned()]);
        let answer =
            |identity: &str| head(&answer(&request("GET", PATH, &question.nonce), identity).unwrap());
        assert_eq!(question.answered_by(&answer("kubenap-1"), &members), Some("kubenap-1"));
        assert_eq!(question.answered_by(&answer("elsewhere"), &members), None);
        assert_eq!(other.answered_by(&answer("kubenap-1"), &members), None);
        let late = answer("kubenap-1").replace("200", "503");
        assert_eq!(question.answered_by(&late, &members), None);
        for text in ["", "HTTP/1.1 200 OK\r\n\r\n", "HTTP/1.1", "SSH-2.0-x\r\n", &question.text("x")] {
            assert_eq!(question.answered_by(text, &members), None, "{text:?}");
        }
    }

    #[test]
    fn what_an_app_may_be_asked_is_no_question() {
        let nonce = "0".repeat(LENGTH);
        for (method, path, nonce) in [
            ("POST", PATH, nonce.as_str()),
            ("GET", "/", nonce.as_str()),
            ("GET", PATH, "short"),
            ("GET", PATH, &"x".repeat(LENGTH)),
        ] {
            assert!(answer(&request(method, path, nonce), "kubenap-0").is_none(), "{method} {path} {nonce}");
        }
        let bare = Request::builder().uri(PATH).body(()).unwrap();
        assert!(answer(&bare, "kubenap-0").is_none());
    }
}
