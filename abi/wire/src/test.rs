//! Echo: what measurements and tests send.

crate::messages! {
    /// Send it back.
    0x7f01 Echo (Request, request -> EchoReply, payload 4096) {
        v1 {
            /// Any value.
            value: u64,
        }
    }

    /// Here it is.
    0x7f02 EchoReply (Reply, reply, payload 4096) {
        v1 {
            /// The value.
            value: u64,
        }
    }
}
