//! What an InfluxDB source must be told, and under which names Telegraf has written what proxies count.

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::super::preset::Preset;
use super::super::spec::{Kind, Setup, With, address};
use super::super::{
    Authorization, Credentials, Endpoint, Secret, SourceError, SpecError, TrafficMetricsSource,
};
use super::{InfluxSource, Language, Row, Scope, Table};

/// `influxdb=URL?org=…&bucket=…`, or with more settings in the config file.
pub(in crate::activity) const KIND: Kind = Kind {
    name: "influxdb",
    forms: "influxdb=URL?org=ORG&bucket=BUCKET",
    short: |url| {
        let mut endpoint = address("influxdb", url)?;
        let org = endpoint.take("org");
        let bucket = endpoint.take("bucket").or_else(|| endpoint.take("db"));
        let bucket = bucket.ok_or_else(|| SpecError::Incomplete {
            name: "influxdb".to_owned(),
            what: "needs a bucket; accepted: influxdb=http://HOST:PORT?org=ORG&bucket=BUCKET".to_owned(),
        })?;
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let token = variable("KUBENAP_INFLUXDB_TOKEN_FILE").map(|path| Secret::File(path.into()));
        let token = token.or_else(|| variable("KUBENAP_INFLUXDB_TOKEN").map(Secret::Text));
        let credentials =
            Credentials { authorization: token.map(Authorization::Token), ..Credentials::default() };
        let scope = Scope { bucket, instance_tag: INSTANCE_TAG.to_owned() };
        Ok(Arc::new(InfluxSetup {
            endpoint,
            credentials,
            // Without an organisation it can only be one of the servers that have none.
            language: if org.is_some() { Language::Flux } else { Language::InfluxQl },
            org,
            retention_policy: None,
            scope,
            schema: Schema::Telegraf1,
            gone_after: GONE_AFTER,
        }))
    },
    read: |fields| {
        let endpoint = fields.endpoint("url").unwrap_or_default();
        let language = [("flux", Language::Flux), ("influxql", Language::InfluxQl)];
        let language = fields.word("language", &language, Language::Flux);
        let org = match language {
            Language::Flux => Some(fields.needed("org")),
            Language::InfluxQl => None,
        };
        let bucket = match language {
            Language::Flux => fields.needed("bucket"),
            Language::InfluxQl => fields.needed("database"),
        };
        let retention_policy =
            if language == Language::InfluxQl { fields.text("retentionPolicy") } else { None };
        let token = fields.secret("token");
        let mut credentials = fields.credentials();
        if token.is_some() && credentials.authorization.is_some() {
            fields.mistake("token", "stands beside other credentials; accepted: one of them");
        }
        credentials.authorization = token.map(Authorization::Token).or(credentials.authorization);
        let instance_tag = fields.text("instanceTag").unwrap_or_else(|| INSTANCE_TAG.to_owned());
        let versions = [("1", Schema::Telegraf1), ("2", Schema::Telegraf2)];
        let version = fields.text("metricVersion");
        let mut schema = versions.iter().find(|(word, _)| version.as_deref() == Some(*word));
        if version.is_some() && schema.is_none() {
            fields.mistake("metricVersion", "is not understood; accepted: 1, 2");
        }
        let measurement = fields.text("measurement").map(|measurement| {
            Schema::Own(Own {
                measurement,
                field: fields.text("field").unwrap_or_else(|| "counter".to_owned()),
                namespace_tag: fields.text("namespaceTag").unwrap_or_else(|| "namespace".to_owned()),
                service_tag: fields.text("serviceTag").unwrap_or_else(|| "service".to_owned()),
            })
        });
        if measurement.is_some() && schema.take().is_some() {
            fields.mistake("metricVersion", "stands beside measurement; accepted: one of them");
        }
        let schema =
            measurement.or_else(|| schema.map(|(_, schema)| schema.clone())).unwrap_or(Schema::Telegraf1);
        let gone_after = fields.duration("goneAfter", Duration::from_mins(1)).unwrap_or(GONE_AFTER);
        Arc::new(InfluxSetup {
            endpoint,
            credentials,
            language,
            org,
            retention_policy,
            scope: Scope { bucket, instance_tag },
            schema,
            gone_after,
        })
    },
};

/// Telegraf's tag for what it scraped.
const INSTANCE_TAG: &str = "url";

/// A proxy that was not heard of for this long is gone; until then it holds the watermark back.
const GONE_AFTER: Duration = Duration::from_hours(1);

/// All that an InfluxDB source is told.
#[derive(Clone, Debug)]
pub(in crate::activity) struct InfluxSetup {
    pub(super) endpoint: Endpoint,
    pub(super) credentials: Credentials,
    pub(super) language: Language,
    pub(super) org: Option<String>,
    pub(super) retention_policy: Option<String>,
    pub(super) scope: Scope,
    pub(super) schema: Schema,
    pub(super) gone_after: Duration,
}

/// Under which names the counters stand.
#[derive(Clone, Debug)]
pub(super) enum Schema {
    /// Telegraf's `metric_version = 1`: a measurement for each metric, with the field `counter` or `gauge`.
    Telegraf1,
    /// Telegraf's `metric_version = 2`: the measurement `prometheus` with a field for each metric.
    Telegraf2,
    /// A measurement of somebody's own.
    Own(Own),
}

#[derive(Clone, Debug)]
pub(super) struct Own {
    measurement: String,
    field: String,
    namespace_tag: String,
    service_tag: String,
}

impl Setup for InfluxSetup {
    fn build(&self, name: String, _: &With<'_>) -> Result<Arc<dyn TrafficMetricsSource>, SourceError> {
        Ok(Arc::new(InfluxSource::new(name, self.clone())?))
    }
}

/// What is asked for: for each proxy the counters, and a sign of life.
#[derive(Clone, Debug)]
pub(super) struct Tables {
    presets: Vec<Preset>,
    pub(super) counters: Vec<Table>,
    pub(super) presence: Vec<Table>,
    own: Option<Own>,
}

impl Tables {
    pub(super) fn of(setup: &InfluxSetup) -> Self {
        let table = |measurement: &str, field: &str, tags: Vec<String>| Table {
            measurement: measurement.to_owned(),
            field: field.to_owned(),
            tags,
        };
        if let Schema::Own(own) = &setup.schema {
            let tags = vec![own.namespace_tag.clone(), own.service_tag.clone()];
            let counters = vec![table(&own.measurement, &own.field, tags)];
            // Whoever writes these counters writes all of them each time.
            let presence = vec![table(&own.measurement, &own.field, Vec::new())];
            return Self { presets: vec![Preset::Named], counters, presence, own: Some(own.clone()) };
        }
        let presets = Preset::PROXIES.to_vec();
        let named = |metric: &str, field: &str, tags: Vec<String>| match setup.schema {
            Schema::Telegraf2 => table("prometheus", metric, tags),
            Schema::Telegraf1 | Schema::Own(_) => table(metric, field, tags),
        };
        let tags = |preset: &Preset| {
            let mut tags: Vec<_> = preset.labels().split(", ").map(str::to_owned).collect();
            tags.extend(preset.code().map(str::to_owned));
            if *preset == Preset::IngressNginx {
                tags.push(CONTROLLER.to_owned());
            }
            tags
        };
        let mut presence: Vec<_> = presets
            .iter()
            .map(|preset| named(preset.presence(), preset.presence_kind(), Vec::new()))
            .collect();
        presence.push(named(STARTED, "gauge", Vec::new()));
        Self {
            counters: presets.iter().map(|preset| named(preset.metric(), "counter", tags(preset))).collect(),
            presence,
            presets,
            own: None,
        }
    }

    /// Whose sign of life the row is.
    pub(super) fn beats(&self, row: &Row) -> Option<Preset> {
        self.find(&self.presence, row)
    }

    /// When the row's instance began, if it says that.
    pub(super) fn started(&self, row: &Row) -> Option<Timestamp> {
        let table = self.presence.get(self.presets.len())?;
        if table.measurement != row.measurement || table.field != row.field {
            return None;
        }
        let since = SignedDuration::try_from_secs_f64(row.value).ok()?;
        Timestamp::from_duration(since).ok()
    }

    /// Whose counter the row is.
    pub(super) fn counts(&self, row: &Row) -> Option<Preset> {
        self.find(&self.counters, row)
    }

    fn find(&self, tables: &[Table], row: &Row) -> Option<Preset> {
        let is = |table: &Table| table.measurement == row.measurement && table.field == row.field;
        tables.iter().position(is).and_then(|at| self.presets.get(at)).copied()
    }

    /// A label of the metric, whatever the tag is called.
    pub(super) fn label<'a>(&self, preset: Preset, row: &'a Row, label: &str) -> &'a str {
        let tag = match (&self.own, preset, label) {
            (Some(own), Preset::Named, "namespace") => own.namespace_tag.as_str(),
            (Some(own), Preset::Named, "service") => own.service_tag.as_str(),
            _ => label,
        };
        row.tags.get(tag).map_or("", String::as_str)
    }

    /// Whether Telegraf's own discovery has put the controller's namespace in place of the app's, which then is not
    /// known at all: every series says the namespace in which the controller runs.
    pub(super) fn are_overwritten(&self, preset: Preset, rows: &[Row]) -> bool {
        let mut own = rows.iter().filter(|row| self.counts(row) == Some(preset)).peekable();
        let tag = |row: &Row, name: &str| row.tags.get(name).cloned().unwrap_or_default();
        preset == Preset::IngressNginx
            && own.peek().is_some()
            && own.all(|row| tag(row, CONTROLLER) == tag(row, "namespace"))
    }
}

/// When a process began; most proxies show it.
const STARTED: &str = "process_start_time_seconds";

/// Where an ingress-nginx runs itself.
const CONTROLLER: &str = "controller_namespace";
