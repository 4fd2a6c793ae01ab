//! The flag `--source NAME[=URL]`, and the sources that are built from it.

use std::str::FromStr;
use std::sync::Arc;

use super::{
    Credentials, Endpoint, IngressSource, PrometheusSource, SourceError, SpecError, TrafficMetricsSource,
};

/// One `--source`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SourceSpec {
    /// The ingress pods' own metrics, found by the pods' labels.
    Ingress,
    /// The ingress' own metrics at a fixed address.
    IngressAt(Endpoint),
    /// A Prometheus server.
    Prometheus(Endpoint),
}

impl FromStr for SourceSpec {
    type Err = SpecError;

    fn from_str(text: &str) -> Result<Self, SpecError> {
        let (name, url) = text.split_once('=').map_or((text, None), |(name, url)| (name, Some(url)));
        let endpoint =
            |url: &str| Endpoint::parse(url).map_err(|why| SpecError::BadUrl { name: name.to_owned(), why });
        match (name, url) {
            ("ingress", None) => Ok(Self::Ingress),
            ("ingress", Some(url)) => endpoint(url).map(Self::IngressAt),
            ("prometheus", Some(url)) => endpoint(url).map(Self::Prometheus),
            ("prometheus", None) => Err(SpecError::NoUrl { name: name.to_owned() }),
            ("influxdb" | "datadog" | "logs", _) => Err(SpecError::Later { name: name.to_owned() }),
            _ => Err(SpecError::Unknown { given: name.to_owned() }),
        }
    }
}

/// The sources for these specs: one for all `ingress` addresses together, one for each Prometheus.
///
/// `credentials` go to Prometheus servers only. The second Prometheus is named `prometheus-2`, and so on.
///
/// # Errors
/// When a credential cannot be used.
pub fn build(
    specs: &[SourceSpec],
    credentials: &Credentials,
    client: &kube::Client,
) -> Result<Vec<Arc<dyn TrafficMetricsSource>>, SourceError> {
    let mut sources: Vec<Arc<dyn TrafficMetricsSource>> = Vec::new();
    let mut fixed = Vec::new();
    let mut discover = false;
    let mut servers = 0;
    for spec in specs {
        match spec {
            SourceSpec::Ingress => discover = true,
            SourceSpec::IngressAt(endpoint) => fixed.push(endpoint.clone()),
            SourceSpec::Prometheus(endpoint) => {
                servers += 1;
                let name =
                    if servers == 1 { "prometheus".to_owned() } else { format!("prometheus-{servers}") };
                sources.push(Arc::new(PrometheusSource::new(name, endpoint.clone(), credentials.clone())?));
            }
        }
    }
    match (discover, fixed.is_empty()) {
        (true, _) => sources.push(Arc::new(IngressSource::discover(client.clone(), fixed))),
        (false, false) => sources.push(Arc::new(IngressSource::at(fixed))),
        (false, true) => {}
    }
    Ok(sources)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(text: &str) -> String {
        text.parse::<SourceSpec>().unwrap_err().to_string()
    }

    #[test]
    fn the_accepted_forms_are_accepted() {
        assert_eq!("ingress".parse(), Ok(SourceSpec::Ingress));
        let at = Endpoint::parse("http://10.0.0.1:8080/metrics").unwrap();
        assert_eq!("ingress=http://10.0.0.1:8080/metrics".parse(), Ok(SourceSpec::IngressAt(at)));
        let server = Endpoint::parse("https://prom.example/base?a=b").unwrap();
        assert_eq!("prometheus=https://prom.example/base?a=b".parse(), Ok(SourceSpec::Prometheus(server)));
    }

    #[test]
    fn a_refusal_says_what_is_accepted() {
        assert!(refusal("graphite").contains("accepted: ingress, ingress=URL, prometheus=URL"));
        assert!(refusal("prometheus").contains("needs an address: prometheus=http://HOST:PORT"));
        for later in ["influxdb=http://x", "datadog", "logs=pods"] {
            assert!(refusal(later).contains("comes in a later version"), "{later}");
        }
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
