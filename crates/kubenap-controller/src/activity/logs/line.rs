//! One line of an access log: when a request ended, and the words in it that lead to an app.
//!
//! Nothing is copied from a line that is text; words are found by their quotes and brackets, not by expressions.

use super::super::mapping::subset;
use super::json;
use super::when;

/// The formats that are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::activity) enum Format {
    /// NGINX's `combined`, with the host before it or not.
    Combined,
    /// ingress-nginx's `upstreaminfo`.
    UpstreamInfo,
    /// Traefik's common log format.
    TraefikClf,
    /// Envoy's default text, and Istio's.
    EnvoyText,
    /// An object a line: NGINX, Traefik, Envoy and Istio, told by their own names of fields.
    Json,
}

impl Format {
    /// The words of the config file.
    pub(in crate::activity) const WORDS: [(&'static str, Option<Self>); 6] = [
        ("auto", None),
        ("combined", Some(Self::Combined)),
        ("upstreaminfo", Some(Self::UpstreamInfo)),
        ("traefik", Some(Self::TraefikClf)),
        ("envoy", Some(Self::EnvoyText)),
        ("json", Some(Self::Json)),
    ];
}

/// So many dashes of a router are looked behind; an entry point's name has fewer.
const DASHES: usize = 5;

/// What one line says.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Hit {
    /// What leads to apps; none: the request went to no app.
    pub(super) keys: Vec<String>,
    /// When it ended, in whole seconds since 1970, rounded up.
    pub(super) ended: i64,
    /// Its path.
    pub(super) path: String,
    /// Its `User-Agent`.
    pub(super) agent: String,
    /// Whether it is Envoy's, which keeps lines back before it writes them.
    pub(super) kept_back: bool,
}

/// Reads lines of one log, into a hit that is used again and again.
#[derive(Debug, Default)]
pub(super) struct Lines {
    declared: Option<Format>,
    clock: when::Clock,
    nameless: bool,
    pub(super) hit: Hit,
}

impl Lines {
    pub(super) fn new(declared: Option<Format>) -> Self {
        Self { declared, ..Self::default() }
    }

    /// Whether the last line's format names neither host nor Service.
    pub(super) fn is_without_names(&self) -> bool {
        self.nameless
    }

    /// Reads a line into `hit`. `false`: it fits no format, or not the declared one.
    pub(super) fn read(&mut self, line: &str) -> bool {
        self.hit.keys.clear();
        self.hit.path.clear();
        self.hit.agent.clear();
        self.hit.kept_back = false;
        let line = line.trim_end();
        let looks_like = if line.starts_with('{') {
            Format::Json
        } else if line.starts_with('[') {
            Format::EnvoyText
        } else {
            self.declared.filter(|format| !matches!(format, Format::Json | Format::EnvoyText)).unwrap_or_else(
                || {
                    let after = line.rsplit_once('"').map_or("", |(_, after)| after.trim());
                    if after.ends_with("ms") {
                        Format::TraefikClf
                    } else if after.contains('[') {
                        Format::UpstreamInfo
                    } else {
                        Format::Combined
                    }
                },
            )
        };
        if self.declared.is_some_and(|declared| declared != looks_like) {
            return false;
        }
        self.nameless = looks_like == Format::Combined;
        let read = match looks_like {
            Format::Json => json::read(line, &mut self.clock, &mut self.hit),
            Format::EnvoyText => self.envoy(line),
            Format::Combined | Format::UpstreamInfo | Format::TraefikClf => self.common(line, looks_like),
        };
        read.is_some()
    }

    /// `client - user [time] "request" status bytes "referer" "agent"`, and what each proxy puts behind it.
    fn common(&mut self, line: &str, format: Format) -> Option<()> {
        let (before, rest) = line.split_once('[')?;
        let (time, rest) = rest.split_once(']')?;
        let ended = self.clock.common(time)?;
        let mut quotes = Quotes(rest);
        let request = quotes.next()?;
        let numbers = quotes.until_next();
        if !numbers.trim_start().as_bytes().first().is_some_and(u8::is_ascii_digit) {
            return None;
        }
        let agent = quotes.nth(1)?;
        self.hit.path.push_str(path_of(request));
        self.hit.agent.push_str(agent);
        self.hit.ended = ended + 1;
        match format {
            Format::UpstreamInfo => {
                let (_, tail) = rest.rsplit_once('"')?;
                let mut brackets = tail.split('[').skip(1).filter_map(|part| part.split(']').next());
                let upstream = brackets.next()?;
                // The second is the canary's.
                for name in [Some(upstream), brackets.next()].into_iter().flatten() {
                    if !matches!(name, "" | "-") {
                        self.hit.keys.push(format!("up {name}"));
                    }
                }
            }
            Format::TraefikClf => {
                let router = quotes.next()?;
                let millis = line.rsplit_once(' ')?.1.strip_suffix("ms")?.parse::<i64>().ok()?;
                // Its time is that of the request's beginning.
                self.hit.ended = ended + millis / 1000 + 1;
                if router != "-" {
                    self.hit.keys.extend(routers(router));
                }
            }
            Format::Combined | Format::Json | Format::EnvoyText => {
                // `vhost_combined`: the host stands first.
                let first = before.split(' ').next().unwrap_or_default();
                let words = before.split(' ').filter(|word| !word.is_empty()).count();
                if words == 4 {
                    self.hit.keys.push(host_key(first, false));
                }
            }
        }
        Some(())
    }

    /// `[start] "request" status flags … bytes in, bytes out, duration, … "xff" "agent" "id" "authority" "upstream"`,
    /// and with Istio the cluster.
    fn envoy(&mut self, line: &str) -> Option<()> {
        let (time, rest) = line.strip_prefix('[')?.split_once(']')?;
        let started = self.clock.iso(time)?;
        let mut quotes = Quotes(rest);
        let request = quotes.next()?;
        let mut words = quotes.until_next().split_ascii_whitespace();
        words.next()?.parse::<u16>().ok()?;
        // Istio has two more fields, one of them quoted, before the numbers.
        let mut numbers = words.filter_map(|word| word.parse::<i64>().ok());
        let mut duration = numbers.nth(2);
        quotes.next()?;
        if duration.is_none() {
            let between = quotes.until_next();
            duration = between.split_ascii_whitespace().filter_map(|word| word.parse().ok()).nth(2);
            quotes.next()?;
        }
        let agent = quotes.next()?;
        let authority = quotes.nth(1)?;
        quotes.next()?;
        let cluster = quotes.0.split_ascii_whitespace().next();
        self.hit.path.push_str(path_of(request));
        self.hit.agent.push_str(agent);
        self.hit.ended = started + duration? / 1000 + 1;
        self.hit.kept_back = true;
        match cluster.filter(|cluster| cluster.contains('|')) {
            Some(cluster) => self.hit.keys.push(cluster_key(cluster)),
            // Istio names the cluster, and there was none.
            None if authority != "-" => self.hit.keys.push(host_key(authority, cluster == Some("-"))),
            None => {}
        }
        Some(())
    }
}

/// The words between quotes, which may hold escaped ones.
struct Quotes<'a>(&'a str);

impl<'a> Iterator for Quotes<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        let (_, inside) = self.0.split_once('"')?;
        let bytes = inside.as_bytes();
        let mut at = 0;
        loop {
            match bytes.get(at)? {
                b'"' => break,
                b'\\' => at += 2,
                _ => at += 1,
            }
        }
        self.0 = inside.get(at + 1..)?;
        inside.get(..at)
    }
}

impl<'a> Quotes<'a> {
    /// What stands before the next quote.
    fn until_next(&self) -> &'a str {
        self.0.split('"').next().unwrap_or_default()
    }
}

/// The path of `GET /path?query HTTP/1.1`, without its query.
pub(super) fn path_of(request: &str) -> &str {
    let path = request.split(' ').nth(1).unwrap_or(request);
    path.split('?').next().unwrap_or(path)
}

/// A cluster of Envoy's; of Istio's for a subset of a Service that of the whole.
pub(super) fn cluster_key(cluster: &str) -> String {
    match subset(cluster) {
        Some((whole, _)) => format!("cluster {whole}"),
        None => format!("cluster {cluster}"),
    }
}

/// A router of Traefik's, and what stands behind each of its first dashes: where an entry point has TLS of its own, its name
/// comes before the router's, and before that of a route of the Gateway API its kind. A key too many only keeps an app awake.
fn routers(router: &str) -> impl Iterator<Item = String> {
    let behind = router.match_indices('-').take(DASHES).filter_map(|(at, _)| router.get(at + 1..));
    [router].into_iter().chain(behind).map(|name| format!("router {name}"))
}

/// A host, lower case, without its port and the dot of its root: by which the request went to an app that the line does not
/// name, or which was asked for in vain, where the line would name it.
pub(super) fn host_key(host: &str, in_vain: bool) -> String {
    let host = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let host = host.strip_suffix('.').unwrap_or(host);
    let mut key = String::with_capacity(host.len() + 6);
    key.push_str(if in_vain { "asked " } else { "host " });
    key.extend(host.chars().map(|sign| sign.to_ascii_lowercase()));
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    type Seen = (Vec<String>, i64, String, String);

    fn read(line: &str) -> Option<Seen> {
        let mut lines = Lines::new(None);
        lines.read(line).then(|| {
            let hit = lines.hit;
            (hit.keys, hit.ended, hit.path, hit.agent)
        })
    }

    #[expect(clippy::unnecessary_wraps, reason = "it stands beside what `read` gives")]
    fn hit(keys: &[&str], ended: i64, path: &str, agent: &str) -> Option<Seen> {
        Some((keys.iter().map(|key| (*key).to_owned()).collect(), ended, path.to_owned(), agent.to_owned()))
    }

    #[test]
    fn nginx_is_read_with_a_host_and_without() {
        let line =
            r#"10.0.0.1 - - [22/Nov/2026:10:00:00 +0000] "GET /a?b=c HTTP/1.1" 200 12 "-" "curl/8 \"x\"""#;
        assert_eq!(read(line), hit(&[], 1_795_341_601, "/a", r#"curl/8 \"x\""#));
        let line = format!("Web.example:80 {line}");
        assert_eq!(read(&line).unwrap().0, ["host web.example"]);
    }

    #[test]
    fn ingress_nginx_names_the_upstream_and_the_canary_s() {
        let line = r#"10.0.0.1 - - [22/Nov/2026:12:00:00 +0200] "GET / HTTP/1.1" 200 12 "-" "kube-probe/1.34" 80 0.001 [shop-web-80] [] 10.88.0.2:8080 12 0.001 200 abc"#;
        assert_eq!(read(line), hit(&["up shop-web-80"], 1_795_341_601, "/", "kube-probe/1.34"));
        let canary = line.replace("[]", "[shop-web2-80]");
        assert_eq!(read(&canary).unwrap().0, ["up shop-web-80", "up shop-web2-80"]);
        let nobody = line.replace("[shop-web-80]", "[]");
        assert_eq!(read(&nobody).unwrap().0, [""; 0]);
    }

    #[test]
    fn traefik_s_time_is_the_beginning() {
        let line = r#"10.0.0.1 - - [22/Nov/2026:10:00:00 +0000] "GET /x HTTP/1.1" 200 17 "-" "curl/8" 3 "shop-web-web-example@kubernetes" "http://10.88.0.2:8080" 2500ms"#;
        let routers = ["shop-web-web-example", "web-web-example", "web-example", "example"];
        let routers = routers.map(|name| format!("router {name}@kubernetes"));
        let expected = hit(&routers.each_ref().map(String::as_str), 1_795_341_603, "/x", "curl/8");
        assert_eq!(read(line), expected);
        assert_eq!(read(&line.replace("shop-web-web-example@kubernetes", "-")).unwrap().0, [""; 0]);
    }

    #[test]
    fn envoy_and_istio_are_read() {
        let envoy = r#"[2026-11-22T10:00:00.500Z] "GET /y HTTP/1.1" 200 - 0 2 1500 1 "10.0.0.1" "curl/8" "id" "web.example:8080" "10.88.0.2:8080""#;
        assert_eq!(read(envoy), hit(&["host web.example"], 1_795_341_602, "/y", "curl/8"));
        let istio = r#"[2026-11-22T10:00:00.500Z] "GET /y HTTP/1.1" 200 - via_upstream - "-" 0 2 1500 1 "10.0.0.1" "curl/8" "id" "web.example" "10.88.0.2:8080" outbound|80||web.shop.svc.cluster.local 10.0.0.9:1 10.0.0.8:2 - default"#;
        let expected =
            hit(&["cluster outbound|80||web.shop.svc.cluster.local"], 1_795_341_602, "/y", "curl/8");
        assert_eq!(read(istio), expected);
    }

    #[test]
    fn what_fits_nothing_is_told_and_a_declared_format_is_kept_to() {
        for odd in
            ["", "hello", "{", "[x] y", "a [b] \"c\"", "10.0.0.1 - - [22/Nov/2026:10:00:00 +0000] \"GET"]
        {
            assert_eq!(read(odd), None, "{odd}");
        }
        let line = r#"10.0.0.1 - - [22/Nov/2026:10:00:00 +0000] "GET /a HTTP/1.1" 200 12 "-" "curl/8""#;
        assert!(Lines::new(Some(Format::Combined)).read(line));
        for declared in [Format::UpstreamInfo, Format::TraefikClf, Format::EnvoyText, Format::Json] {
            assert!(!Lines::new(Some(declared)).read(line), "{declared:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_line_makes_it_panic(line in "[\\[\\]{}\" 0-9a-z:./|\\\\+-]{0,120}") {
            for (_, format) in Format::WORDS {
                Lines::new(format).read(&line);
            }
        }
    }
}
