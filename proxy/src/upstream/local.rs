//! Our own app as the destination of clients that are not in the mesh: their requests are streams of a local pair, which
//! the inbound side serves as it serves those of a peer.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use ringmail_proto::destination::{Destination, DestinationKind};

use crate::error::Reason;
use crate::metrics::Traffic;
use crate::peer::stream::Stream;
use crate::peer::streams::Streams;

/// Where such requests go.
#[derive(Debug)]
pub(crate) struct Local {
    /// The opening end of the pair. It ends with this.
    streams: Rc<Streams>,
    app: SocketAddr,
    /// What the app is to those who ask: no service.
    destination: Arc<Destination>,
    /// The inbound side counts.
    uncounted: Rc<Traffic>,
}

impl Local {
    pub(crate) fn new(streams: Rc<Streams>, app: SocketAddr) -> Self {
        let destination = Destination {
            address: app,
            kind: DestinationKind::External,
        };
        Self {
            streams,
            app,
            destination: Arc::new(destination),
            uncounted: Rc::new(Traffic::uncounted()),
        }
    }

    pub(super) fn destination(&self) -> Arc<Destination> {
        self.destination.clone()
    }

    pub(super) fn traffic(&self) -> Rc<Traffic> {
        self.uncounted.clone()
    }

    pub(super) fn place(&self, stream: &Stream) -> Result<(), Reason> {
        if !self.streams.has_room() {
            return Err(Reason::Overloaded);
        }
        stream.place(&self.streams, self.app.port())
    }
}

impl Drop for Local {
    /// Streams that are open go on.
    fn drop(&mut self) {
        self.streams.retire();
    }
}
