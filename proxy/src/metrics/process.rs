//! What the process itself uses, read when somebody asks; what cannot be read is left out.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use ringmail_proto::catalogue::Metric;
use ringmail_proto::process::Usage;

use super::catalogue;

#[derive(Debug)]
pub(super) struct Process;

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let usage = Usage::read();
        let e = &mut encoder;
        let resident = usage.resident_bytes.map(ConstGauge::new);
        write(e, &catalogue::RESIDENT_MEMORY, resident)?;
        write(
            e,
            &catalogue::OPEN_FDS,
            usage.open_files.map(ConstGauge::new),
        )?;
        write(e, &catalogue::MAX_FDS, usage.files_max.map(ConstGauge::new))?;
        let started = usage.start_seconds.map(ConstGauge::new);
        write(e, &catalogue::START_TIME, started)?;
        write(e, &catalogue::CPU, usage.cpu_seconds.map(ConstCounter::new))
    }
}

fn write(
    encoder: &mut DescriptorEncoder<'_>,
    row: &Metric,
    metric: Option<impl EncodeMetric>,
) -> fmt::Result {
    let Some(metric) = metric else {
        return Ok(());
    };
    // The library adds what counters end in.
    let name = row.name.strip_suffix("_total").unwrap_or(row.name);
    let kind = metric.metric_type();
    metric.encode(encoder.encode_descriptor(name, row.help, None, kind)?)
}
