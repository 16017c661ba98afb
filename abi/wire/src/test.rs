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

    /// Bounce a line of the asker's memory: for each round wait until its first word is `2 n + 1`, then store `2 n + 2`. Answered at the end.
    0x7f03 Bounce (Request, request -> Bounced) {
        v1 {
            /// Where the line is, counted from the beginning of the asker's memory.
            at: u64,
            /// How many rounds, from n = 0.
            rounds: u32,
            /// 0: poll the line; 1: halt, and ring the asker after each store (the asker rings too).
            bells: u8,
        }
    }

    /// That is done.
    0x7f04 Bounced (Reply, reply) {
        v1 {
            /// Rounds that were made; fewer if the asker was silent too long.
            rounds: u32,
        }
    }

    /// Take part in a proof that this memory of the asker is the same for both: `ssi/cluster/src/proof.rs` says what is in it. Answered at the end.
    0x7f07 Prove (Request, request -> Proved) {
        v1 {
            /// Where it is, counted from the beginning of the asker's memory.
            at: u64,
        }
    }

    /// That is done; what came out is in the memory.
    0x7f08 Proved (Reply, reply) {
        v1 {}
    }

    /// One of many that are said to all listeners of a group, in order.
    0x7f09 Said (Request, event, payload 4096) {
        v1 {
            /// Which one, from 0.
            number: u64,
        }
    }

    /// What have you heard of what I said to many, since number 0?
    0x7f0a Report (Request, request -> Reported) {
        v1 {}
    }

    /// This.
    0x7f0b Reported (Reply, reply) {
        v1 {
            /// The number of the next one: all before it came, in order, if nothing is wrong or missed.
            next: u64,
            /// 1: something was out of order, or not what was said.
            wrong: u8,
            /// How often something was missed because the listener was slow.
            missed: u32,
        }
    }

    /// Send it back at once. On the most urgent lane, which never grows.
    0x7f0c EchoUrgent (Control, request -> EchoReply, payload 256) {
        v1 {
            /// Any value.
            value: u64,
        }
    }

    /// Send it back. On the lane of bulk.
    0x7f0d EchoBulk (Bulk, request -> EchoReply, payload 4096) {
        v1 {
            /// Any value.
            value: u64,
        }
    }

    /// Gather a payload that lies in the asker's memory, so many times, in place and as a copy. Answered at the end.
    0x7f0e Gather (Request, request -> Gathered) {
        v1 {
            /// Where it is, counted from the beginning of the asker's memory.
            at: u64,
            /// How many bytes: a multiple of 8.
            len: u32,
            /// How often, each way.
            rounds: u32,
        }
    }

    /// That is done; times in nanoseconds for one round each.
    0x7f0f Gathered (Reply, reply) {
        v1 {
            /// The checksum of what was there; of the copies too, or all its bits are wrong.
            sum: u64,
            /// The checksum made of the asker's memory.
            in_place: u64,
            /// Copied from there.
            copied: u64,
            /// As many bytes copied from the answerer's own memory to where those went.
            own_copied: u64,
            /// The checksum made of the answerer's own memory.
            own_summed: u64,
        }
    }

    /// How often did you ring me?
    0x7f05 Tally (Request, request -> Tallied) {
        v1 {}
    }

    /// So often.
    0x7f06 Tallied (Reply, reply) {
        v1 {
            /// Bells rung at the asker since the link was opened.
            doorbells: u64,
        }
    }
}
