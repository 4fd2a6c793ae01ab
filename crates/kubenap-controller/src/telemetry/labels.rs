//! The closed sets of label values, each with the word that it shows as.

use std::fmt::{self, Write};

use prometheus_client::encoding::{EncodeLabelValue, LabelValueEncoder};

/// Declares an enum whose variants show as fixed words, with the list of all of them.
macro_rules! label {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $word:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name {
            $($(#[$variant_doc])* $variant,)+
        }

        impl $name {
            /// Every value, in the order of declaration.
            pub const ALL: [Self; [$($word),+].len()] = [$(Self::$variant),+];

            /// The word that stands in the metric.
            pub fn label(self) -> &'static str {
                match self {
                    $(Self::$variant => $word,)+
                }
            }
        }

        impl EncodeLabelValue for $name {
            fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> fmt::Result {
                encoder.write_str(self.label())
            }
        }
    };
}

label! {
    /// Which phase an app is in.
    PhaseLabel {
        /// The pods serve, KubeNap is not in the way.
        Awake = "awake",
        /// KubeNap is an endpoint already, the pods still run.
        Drowsy = "drowsy",
        /// No pods; KubeNap answers.
        Asleep = "asleep",
        /// Pods were asked for and are not ready yet.
        Waking = "waking",
    }
}

label! {
    /// How an attempt to nap ended.
    NapOutcome {
        /// The app was scaled to zero.
        Asleep = "asleep",
        /// A request came during the drowsy phase.
        Cancelled = "cancelled",
        /// Something forbids it.
        Refused = "refused",
        /// A write failed for good.
        Failed = "failed",
    }
}

label! {
    /// How a wake ended.
    WakeOutcome {
        /// The pods serve again.
        Awake = "awake",
        /// The pods cannot start.
        Failed = "failed",
        /// The pods were not ready in time.
        TimedOut = "timed-out",
        /// It waits: more apps were asked for than may wake at once. It is counted again when it has ended.
        PutOff = "put-off",
    }
}

label! {
    /// A part of a wake's duration.
    WakePart {
        /// From the first ask until the replica count is written.
        Scale = "scale",
        /// Until a pod has a node.
        Schedule = "schedule",
        /// Until a pod runs.
        Start = "start",
        /// Until a pod is ready.
        Ready = "ready",
        /// Until the pods are checked, what was held is answered, and KubeNap is out of the way.
        Release = "release",
    }
}

label! {
    /// What a request that came to KubeNap got.
    AskAnswer {
        /// 307 to where it wanted to go, the app being ready.
        Redirected = "redirected",
        /// 307 to the same URL, the app not being ready yet.
        Hop = "hop",
        /// Handed to a pod.
        Passed = "passed",
        /// Sent to the app once more by the proxy, which keeps it and was told that the app is ready.
        SentAgain = "sent-again",
        /// The waiting page.
        Page = "page",
        /// 503: the app cannot start.
        Failed = "failed",
        /// 503 or 504: the app was not ready in time.
        TimedOut = "timed-out",
        /// 502: the pod broke the connection before it answered.
        Broken = "broken",
        /// 503: more requests wait than there is room for.
        Shed = "shed",
        /// 503 or 307 to the same URL: this member is leaving.
        Leaving = "leaving",
        /// `grpc-status: 14`, on a way on which gRPC cannot be passed.
        GrpcUnavailable = "grpc-unavailable",
        /// 503: a probe or an ignored request, which woke nothing.
        Ignored = "ignored",
        /// The client went away before there was an answer.
        Gone = "gone",
        /// 400: no redirect can be made of what it asked for.
        Refused = "refused",
        /// 503: the proxy sends the same request again and again although the app is ready.
        Looping = "looping",
    }
}
