//! What the process uses, read when somebody asks; what cannot be read is left out.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use ringmail_proto::catalogue::Metric as Row;
use ringmail_proto::process::{self, Usage};

#[derive(Debug)]
pub(super) struct Process;

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let usage = Usage::read();
        let e = &mut encoder;
        write(
            e,
            process::RESIDENT,
            usage.resident_bytes.map(ConstGauge::new),
        )?;
        write(
            e,
            process::OPEN_FILES,
            usage.open_files.map(ConstGauge::new),
        )?;
        write(e, process::FILES_MAX, usage.files_max.map(ConstGauge::new))?;
        write(e, process::START, usage.start_seconds.map(ConstGauge::new))?;
        write(e, process::CPU, usage.cpu_seconds.map(ConstCounter::new))
    }
}

fn write(
    encoder: &mut DescriptorEncoder<'_>,
    row: &Row,
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
