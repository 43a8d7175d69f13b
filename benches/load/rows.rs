//! The loads, in the order in which they are run.

use crate::pair::Protocol;

/// A load, and what it is told by.
#[derive(Debug)]
pub(crate) struct Row {
    /// For the command line and the JSON.
    pub(crate) key: &'static str,
    pub(crate) title: &'static str,
    pub(crate) shape: Shape,
    pub(crate) cost: Cost,
}

/// What a client does.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Shape {
    /// Keep-alive; closed loop, or open at a rate.
    Http1 {
        connections: usize,
        path: &'static str,
        per_second: Option<u32>,
    },
    /// Prior knowledge; closed loop.
    Http2 { connections: usize, streams: usize },
    /// A connection for every request.
    Connect { at_once: usize },
    /// Bytes to the server, as fast as they go; an exchange is a MiB.
    Up { connections: usize },
    /// Bytes from the server.
    Down { connections: usize },
}

impl Shape {
    /// What proxies see.
    pub(crate) fn protocol(self) -> Protocol {
        match self {
            Self::Http1 { .. } | Self::Connect { .. } => Protocol::Http1,
            Self::Http2 { .. } => Protocol::Http2,
            Self::Up { .. } | Self::Down { .. } => Protocol::Bytes,
        }
    }
}

/// How processor time is told.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Cost {
    /// Microseconds for each exchange.
    MicrosEach,
    /// Seconds for 1 024 exchanges of a MiB.
    SecondsPerGib,
}

impl Cost {
    /// In this unit, from microseconds for each exchange.
    pub(crate) fn of(self, micros_each: f64) -> f64 {
        match self {
            Self::MicrosEach => micros_each,
            Self::SecondsPerGib => micros_each * 1024.0 / 1e6,
        }
    }

    pub(crate) fn unit(self) -> &'static str {
        match self {
            Self::MicrosEach => "CPU µs",
            Self::SecondsPerGib => "CPU s/GiB",
        }
    }
}

/// The row of memory, which is no load: its key.
pub(crate) const MEMORY: &str = "rss";
/// Idle connections in the row of memory.
pub(crate) const IDLE: usize = 1000;

pub(crate) const ROWS: &[Row] = &[
    Row {
        key: "h1-small",
        title: "HTTP/1.1 keep-alive, small, 64 connections",
        shape: Shape::Http1 {
            connections: 64,
            path: "/0",
            per_second: None,
        },
        cost: Cost::MicrosEach,
    },
    Row {
        key: "h1-10k",
        title: "HTTP/1.1 keep-alive, 10 KiB, 64 connections",
        shape: Shape::Http1 {
            connections: 64,
            path: "/10240",
            per_second: None,
        },
        cost: Cost::MicrosEach,
    },
    Row {
        key: "h1-rate",
        title: "HTTP/1.1 keep-alive, small, at 2 000/s",
        shape: Shape::Http1 {
            connections: 64,
            path: "/0",
            per_second: Some(2000),
        },
        cost: Cost::MicrosEach,
    },
    Row {
        key: "h2",
        title: "HTTP/2, small, 10 connections x 20 streams",
        shape: Shape::Http2 {
            connections: 10,
            streams: 20,
        },
        cost: Cost::MicrosEach,
    },
    Row {
        key: "connect",
        title: "a new connection for each request, 16 at once",
        shape: Shape::Connect { at_once: 16 },
        cost: Cost::MicrosEach,
    },
    Row {
        key: "bulk-up",
        title: "bulk TCP to the server, 4 connections, by MiB",
        shape: Shape::Up { connections: 4 },
        cost: Cost::SecondsPerGib,
    },
    Row {
        key: "bulk-down",
        title: "bulk TCP from the server, 4 connections, by MiB",
        shape: Shape::Down { connections: 4 },
        cost: Cost::SecondsPerGib,
    },
];
