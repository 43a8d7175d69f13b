//! Our own app as the destination of clients that are not in the mesh: their requests are streams of a local pair, which
//! the inbound side serves as it serves those of a peer.

use std::rc::Rc;

use crate::error::Reason;
use crate::metrics::Traffic;
use crate::peer::stream::Stream;
use crate::peer::streams::Streams;

/// Where such requests go.
#[derive(Debug)]
pub(crate) struct Local {
    /// The opening end of the pair. It ends with this.
    streams: Rc<Streams>,
    /// The app's.
    port: u16,
    /// The inbound side counts.
    uncounted: Rc<Traffic>,
}

impl Local {
    pub(crate) fn new(streams: Rc<Streams>, port: u16) -> Self {
        Self {
            streams,
            port,
            uncounted: Rc::new(Traffic::uncounted()),
        }
    }

    pub(super) fn traffic(&self) -> Rc<Traffic> {
        self.uncounted.clone()
    }

    pub(super) fn place(&self, stream: &Stream) -> Result<(), Reason> {
        if !self.streams.has_room() {
            return Err(Reason::Overloaded);
        }
        stream.place(&self.streams, self.port)
    }
}

impl Drop for Local {
    /// Streams that are open go on.
    fn drop(&mut self) {
        self.streams.retire();
    }
}
