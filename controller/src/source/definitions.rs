//! The chart holds the definitions of our own kinds as the types say them. After a change of the types,
//! `RINGMAIL_WRITE_CRDS=1 cargo test -p ringmail-controller --lib definitions` writes them.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};
use kube::CustomResourceExt;

use super::authentication::RequestAuthentication;
use super::limit::RateLimitPolicy;
use super::policy::AuthorizationPolicy;
use super::revocation::IdentityRevocation;

const DIRECTORY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../charts/ringmail/files/crds");

/// An API server warns of formats that it does not know, and of the smaller integers it knows none: a user saw that at
/// each install. Their bounds say as much.
fn without_odd_formats(schema: &mut JSONSchemaProps) {
    schema.format.take_if(|format| format.starts_with("uint"));
    let properties = schema.properties.iter_mut();
    properties
        .flat_map(|all| all.values_mut())
        .for_each(without_odd_formats);
    if let Some(JSONSchemaPropsOrArray::Schema(items)) = &mut schema.items {
        without_odd_formats(items);
    }
    if let Some(JSONSchemaPropsOrBool::Schema(values)) = &mut schema.additional_properties {
        without_odd_formats(values);
    }
}

#[test]
fn the_chart_has_them() {
    for mut crd in [
        AuthorizationPolicy::crd(),
        RateLimitPolicy::crd(),
        RequestAuthentication::crd(),
        IdentityRevocation::crd(),
    ] {
        for version in &mut crd.spec.versions {
            let schema = version.schema.as_mut();
            if let Some(schema) = schema.and_then(|one| one.open_api_v3_schema.as_mut()) {
                without_odd_formats(schema);
            }
        }
        let path = format!("{DIRECTORY}/{}.yaml", crd.spec.names.plural);
        let definition = serde_saphyr::to_string(&crd).expect("YAML");
        if std::env::var_os("RINGMAIL_WRITE_CRDS").is_some() {
            std::fs::write(&path, &definition).expect("written");
        }
        assert_eq!(std::fs::read_to_string(&path).expect(&path), definition);
        assert!(!definition.contains("format: uint"), "{path}");
    }
}
