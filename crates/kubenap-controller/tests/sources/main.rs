//! The same questions put to every source, answered by stand-ins on loopback.

mod stage;
mod stand_in;
mod influx_server;
mod datadog_server;
mod lines;

mod scenarios;
mod faults;
mod mapping;
mod history;
mod kept;
mod past;
mod recorded;
mod datadog;
mod logs;
mod ways_in;
mod pod_logs;
mod outages;
mod missing;
mod tls;
mod proxies;
mod routes;
mod settings;
mod queries;
