//! Which sources there are: `--source NAME[=URL]`, the `sources` of the config file, and what is built from them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use async_trait::async_trait;
use kubenap_core::app::AppId;
use serde_json::Value;

use super::fields::Fields;
use super::ingress::{self, IngressSetup};
use super::{
    AppPast, Ask, AskPast, Credentials, Endpoint, Samples, SourceError, SpecError, TrafficMetricsSource,
    datadog, influx, logs, prometheus,
};

/// Every kind of source: a new one is a line here.
const KINDS: &[Kind] = &[ingress::KIND, prometheus::KIND, influx::KIND, datadog::KIND, logs::KIND];

/// What a short form comes to.
pub(super) type Short = Result<Arc<dyn Setup>, SpecError>;

/// One kind of source.
#[derive(Clone, Copy)]
pub(super) struct Kind {
    /// Its name in `--source` and `kind`.
    pub(super) name: &'static str,
    /// What `--source` accepts for it.
    pub(super) forms: &'static str,
    /// From `--source NAME[=URL]`.
    pub(super) short: fn(Option<&str>) -> Short,
    /// From the config file. What is wrong is noted in the fields, and then the setup is not used.
    pub(super) read: fn(&mut Fields) -> Arc<dyn Setup>,
}

/// What one kind of source must be told.
pub(super) trait Setup: fmt::Debug + Send + Sync {
    /// The source itself.
    fn build(&self, name: String, with: &With<'_>) -> Result<Arc<dyn TrafficMetricsSource>, SourceError>;

    /// All addresses of `--source ingress` are one source together.
    fn as_ingress(&self) -> Option<&IngressSetup> {
        None
    }
}

/// What a source may need besides its own settings.
pub(super) struct With<'a> {
    /// For Prometheus servers that a flag names.
    pub(super) credentials: &'a Credentials,
    /// The cluster.
    pub(super) client: &'a kube::Client,
    /// KubeNap's own namespace, for what a source knows that nobody else remembers; none: it keeps nothing.
    pub(super) own: Option<&'a str>,
}

/// One source, with all that it must be told.
#[derive(Clone, Debug)]
pub struct SourceSpec {
    name: Option<String>,
    kind: &'static str,
    by_default: bool,
    setup: Arc<dyn Setup>,
}

/// One `--source`: a source by its short form, or the name of one in the config file.
#[derive(Clone, Debug)]
pub struct SourceArg {
    name: String,
    has_url: bool,
    short: Result<SourceSpec, SpecError>,
}

impl FromStr for SourceSpec {
    type Err = SpecError;

    fn from_str(text: &str) -> Result<Self, SpecError> {
        let (name, url) = text.split_once('=').map_or((text, None), |(name, url)| (name, Some(url)));
        let kind = find(name).ok_or_else(|| SpecError::Unknown { given: name.to_owned() })?;
        let setup = (kind.short)(url)?;
        Ok(Self { name: None, kind: kind.name, by_default: true, setup })
    }
}

impl FromStr for SourceArg {
    type Err = SpecError;

    fn from_str(text: &str) -> Result<Self, SpecError> {
        let (name, has_url) = text.split_once('=').map_or((text, false), |(name, _)| (name, true));
        let short = text.parse();
        match &short {
            // Whether the config file has a source of this name is not known yet.
            Err(SpecError::Unknown { .. } | SpecError::NoUrl { .. }) if !has_url => {}
            Err(error) => return Err(error.clone()),
            Ok(_) => {}
        }
        Ok(Self { name: name.to_owned(), has_url, short })
    }
}

impl SourceSpec {
    /// Reads what the config file says of the source `name`.
    ///
    /// # Errors
    /// Every mistake, each with its place.
    pub fn read(name: &str, value: Value) -> Result<Self, Vec<String>> {
        let place = format!("sources.{name}");
        if !is_name(name) {
            return Err(vec![format!(
                "{place}: is not a name; accepted: lower case letters, digits, - and ."
            )]);
        }
        let Value::Object(mut given) = value else {
            return Err(vec![format!(
                "{place}: is not understood; accepted: kind, and the settings of that kind"
            )]);
        };
        let kinds = || KINDS.iter().map(|kind| kind.name).collect::<Vec<_>>().join(", ");
        let Some(kind) = given.remove("kind") else {
            return Err(vec![format!("{place}.kind: is missing; accepted: {}", kinds())]);
        };
        let Some(kind) = kind.as_str().and_then(find) else {
            return Err(vec![format!("{place}.kind: {kind} is not a kind of source; accepted: {}", kinds())]);
        };
        let mut fields = Fields::new(place, given);
        let setup = (kind.read)(&mut fields);
        fields.finish(Self { name: Some(name.to_owned()), kind: kind.name, by_default: true, setup })
    }

    /// Its kind.
    pub fn kind(&self) -> &'static str {
        self.kind
    }
}

/// The sources to ask: those of the config file, and those that flags name. Where flags name some, apps that do not
/// choose are asked about at these only; without any flag at all of the file's, or at `ingress` if it has none.
///
/// # Errors
/// Every name that neither is a source in short form nor stands in the file.
pub fn resolve(
    args: &[SourceArg],
    file: &BTreeMap<String, SourceSpec>,
) -> Result<Vec<SourceSpec>, Vec<SpecError>> {
    let mut errors = Vec::new();
    let mut chosen = BTreeSet::new();
    let mut specs = Vec::new();
    for arg in args {
        if !arg.has_url && file.contains_key(&arg.name) {
            chosen.insert(arg.name.as_str());
            continue;
        }
        match &arg.short {
            Ok(spec) => specs.push(spec.clone()),
            Err(SpecError::Unknown { given }) if !file.is_empty() => {
                let names = file.keys().cloned().collect::<Vec<_>>().join(", ");
                errors.push(SpecError::NotInFile { given: given.clone(), names });
            }
            Err(error) => errors.push(error.clone()),
        }
    }
    for (name, spec) in file {
        let by_default = args.is_empty() || chosen.contains(name.as_str());
        specs.push(SourceSpec { by_default, ..spec.clone() });
    }
    if specs.is_empty() && args.is_empty() {
        specs.extend("ingress".parse::<SourceSpec>());
    }
    if errors.is_empty() { Ok(specs) } else { Err(errors) }
}

/// The sources for these specs: one for all `ingress` addresses of flags together, one for each other.
///
/// `credentials` go to Prometheus servers that a flag names. A second source of the same name gets a number:
/// `prometheus-2`, and so on. They keep nothing; see [`build_kept`].
///
/// # Errors
/// When a credential cannot be used.
pub fn build(
    specs: &[SourceSpec],
    credentials: &Credentials,
    client: &kube::Client,
) -> Result<Vec<Arc<dyn TrafficMetricsSource>>, SourceError> {
    build_kept(specs, credentials, client, None)
}

/// The same, for sources that keep what nobody else remembers in a namespace, KubeNap's own.
///
/// # Errors
/// When a credential cannot be used.
pub fn build_kept(
    specs: &[SourceSpec],
    credentials: &Credentials,
    client: &kube::Client,
    own: Option<&str>,
) -> Result<Vec<Arc<dyn TrafficMetricsSource>>, SourceError> {
    let with = With { credentials, client, own };
    let mut taken: BTreeSet<String> = specs.iter().filter_map(|spec| spec.name.clone()).collect();
    let mut sources: Vec<Arc<dyn TrafficMetricsSource>> = Vec::new();
    let mut ingress: Option<IngressSetup> = None;
    for spec in specs {
        if let (None, Some(addresses)) = (&spec.name, spec.setup.as_ingress()) {
            ingress = Some(ingress.map_or_else(|| addresses.clone(), |known| known.and(addresses)));
            continue;
        }
        let name = spec.name.clone().unwrap_or_else(|| free(spec.kind, &mut taken));
        let source = spec.setup.build(name, &with)?;
        sources.push(if spec.by_default { source } else { Arc::new(WhenNamed(source)) });
    }
    if let Some(setup) = ingress {
        sources.push(setup.build(free("ingress", &mut taken), &with)?);
    }
    Ok(sources)
}

/// A source that only counts for apps that name it.
#[derive(Debug)]
struct WhenNamed(Arc<dyn TrafficMetricsSource>);

#[async_trait]
impl TrafficMetricsSource for WhenNamed {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn by_default(&self) -> bool {
        false
    }

    async fn poll(&self, ask: &Ask) -> Result<Samples, SourceError> {
        self.0.poll(ask).await
    }

    fn asks_queries(&self) -> bool {
        self.0.asks_queries()
    }

    async fn queries(&self, ask: &Ask) -> Result<Samples, SourceError> {
        self.0.queries(ask).await
    }

    async fn past(&self, ask: &AskPast) -> Result<Vec<(AppId, AppPast)>, SourceError> {
        self.0.past(ask).await
    }
}

/// Every form of `--source`, for messages.
pub(super) fn accepted() -> String {
    KINDS.iter().map(|kind| kind.forms).collect::<Vec<_>>().join(", ")
}

/// The address in a short form that needs one.
pub(super) fn address(kind: &str, url: Option<&str>) -> Result<Endpoint, SpecError> {
    let url = url.ok_or_else(|| SpecError::NoUrl { name: kind.to_owned() })?;
    Endpoint::parse(url).map_err(|why| SpecError::BadUrl { name: kind.to_owned(), why })
}

fn find(name: &str) -> Option<&'static Kind> {
    KINDS.iter().find(|kind| kind.name == name)
}

fn free(name: &str, taken: &mut BTreeSet<String>) -> String {
    let numbered = (2..).map(|number| format!("{name}-{number}"));
    let free = std::iter::once(name.to_owned()).chain(numbered).find(|name| !taken.contains(name));
    let free = free.unwrap_or_default();
    taken.insert(free.clone());
    free
}

/// What `kubenap/metrics` can name.
fn is_name(text: &str) -> bool {
    let good = |sign: char| sign.is_ascii_lowercase() || sign.is_ascii_digit();
    text.len() <= 63
        && text.starts_with(good)
        && text.ends_with(good)
        && text.chars().all(|sign| good(sign) || sign == '-' || sign == '.')
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn refusal(text: &str) -> String {
        text.parse::<SourceSpec>().unwrap_err().to_string()
    }

    fn client() -> kube::Client {
        let nobody = tower::service_fn(|_: http::Request<kube::client::Body>| async {
            Ok::<_, std::convert::Infallible>(http::Response::new(kube::client::Body::empty()))
        });
        kube::Client::new(nobody, "default")
    }

    fn built(args: &[&str], file: &[(&str, Value)]) -> Vec<(String, bool)> {
        let args: Vec<_> = args.iter().map(|arg| arg.parse().unwrap()).collect();
        let file = file
            .iter()
            .map(|(name, value)| ((*name).to_owned(), SourceSpec::read(name, value.clone()).unwrap()));
        let specs = resolve(&args, &file.collect()).unwrap();
        let sources = build(&specs, &Credentials::default(), &client()).unwrap();
        sources.iter().map(|source| (source.name().to_owned(), source.by_default())).collect()
    }

    fn main() -> (&'static str, Value) {
        ("main", json!({"kind": "prometheus", "url": "http://a", "headers": {"X-Scope-OrgID": "shop"}}))
    }

    fn named(name: &str, by_default: bool) -> (String, bool) {
        (name.to_owned(), by_default)
    }

    #[tokio::test]
    async fn without_a_word_the_ingress_is_asked() {
        assert_eq!(built(&[], &[]), [named("ingress", true)]);
    }

    #[tokio::test]
    async fn flags_make_sources_named_by_their_kind() {
        let args = ["ingress=http://a/metrics", "prometheus=http://a", "prometheus=http://b", "ingress"];
        let expected = [named("prometheus", true), named("prometheus-2", true), named("ingress", true)];
        assert_eq!(built(&args, &[]), expected);
    }

    #[tokio::test]
    async fn sources_of_the_file_replace_the_ingress() {
        let spare = ("spare", json!({"kind": "ingress", "urls": ["http://a/metrics"]}));
        assert_eq!(built(&[], &[main(), spare]), [named("main", true), named("spare", true)]);
    }

    #[tokio::test]
    async fn a_flag_chooses_among_the_file_s_and_the_others_count_for_apps_that_name_them() {
        let spare = ("spare", json!({"kind": "prometheus", "url": "http://b"}));
        let expected = [named("main", true), named("spare", false)];
        assert_eq!(built(&["main"], &[main(), spare.clone()]), expected);
        let expected = [named("main", false), named("spare", false), named("ingress", true)];
        assert_eq!(built(&["ingress"], &[main(), spare]), expected);
    }

    #[test]
    fn a_name_that_stands_nowhere_is_refused_with_those_that_do() {
        let file = BTreeMap::from([("main".to_owned(), SourceSpec::read("main", main().1).unwrap())]);
        let args = ["mian".parse().unwrap(), "prometheus".parse().unwrap()];
        let errors = resolve(&args, &file).unwrap_err();
        let errors: Vec<_> = errors.iter().map(ToString::to_string).collect();
        assert!(
            errors[0].starts_with("`mian` is not a source; in the config file are: main; accepted: ingress,")
        );
        assert!(errors[1].contains("needs an address"), "{errors:?}");
    }

    #[test]
    fn a_refusal_says_what_is_accepted() {
        assert!(refusal("graphite").contains("accepted: ingress, ingress=URL, prometheus=URL"));
        assert!(refusal("prometheus").contains("needs an address: prometheus=http://HOST:PORT"));
    }

    #[test]
    fn what_the_file_says_wrongly_is_refused_with_its_place() {
        let wrong = |value| SourceSpec::read("main", value).unwrap_err().join("\n");
        assert!(wrong(json!("x")).starts_with("sources.main: is not understood"));
        assert!(wrong(json!({})).starts_with("sources.main.kind: is missing; accepted: ingress, prometheus"));
        assert!(wrong(json!({"kind": "graphite"})).contains("\"graphite\" is not a kind of source"));
        assert!(wrong(json!({"kind": "prometheus"})).starts_with("sources.main.url: is missing"));
        assert!(SourceSpec::read("My Source", json!({})).unwrap_err()[0].contains("is not a name"));
    }

    #[test]
    fn a_refusal_never_repeats_a_password() {
        for bad in
            ["prometheus=ftp://me:hunter2@x/", "prometheus=http://me:hunter2@:99999/", "hunter2=x:hunter2"]
        {
            let text = refusal(bad).replacen("`hunter2`", "", 1);
            assert!(!text.contains("hunter2"), "{text}");
        }
    }
}
