//! The data plane.

/// Interception: rules in the kernel that bring the pod's connections here.
pub mod capture;
