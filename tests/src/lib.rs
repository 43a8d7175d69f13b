//! The test bed: a cluster on one machine, without one. Pods are network namespaces on a bridge, made over netlink
//! with nothing installed; applications run inside this process, the mesh's own binaries as its children.
//!
//! A program begins with [`bed::Bed::start`], before any thread; makes a [`netns::Node`] and [`netns::Pod`]s on it;
//! runs [`apps`] and [`load`] in them, puts [`fault`]s on their links, looks at the [`wire`], and meshes them with
//! [`mesh`]. Everything goes when it is dropped, and at the latest with the process.

/// What this machine allows.
pub mod bed;

/// Links, addresses and routes over netlink.
mod links;

/// The node and its pods.
pub mod netns;

/// Programs in a pod.
pub mod process;

/// Frames of one interface, in and out.
mod packet;

/// Links that are cut, slow or lossy.
pub mod fault;

/// What went over the wire.
pub mod wire;

/// Is a stream of bytes TLS 1.3?
pub mod tls_records;

/// Applications that know nothing of the mesh.
pub mod apps;

/// Their clients, and load.
pub mod load;

/// The mesh itself: controller and proxies.
pub mod mesh;

/// Waiting for what must come true.
pub mod wait;

/// Dashboards and rules.
pub mod observe;

/// What a Prometheus makes of them.
pub mod prometheus;
