//! Where tasks run: what has one value. Lists such as constraints stand with each verb.

use clap::ValueEnum;
use cluster_pb::types::v1 as pb;

use super::put;
use crate::values::amount::{count, priority, share};
use crate::values::placement::disconnect;

#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Placement")]
pub struct Placement {
    /// Most tasks of the service on one node (default: no limit)
    #[arg(long, value_name = "N", value_parser = count, allow_hyphen_values = true)]
    replicas_max_per_node: Option<u32>,

    /// Which of equally suitable nodes is taken: spread, bin-pack, or '' for the cluster's choice
    /// (default: the cluster's)
    #[arg(long, value_name = "STRATEGY", value_parser = strategy)]
    placement_strategy: Option<String>,

    /// 0 to 100: a task that finds no room may take the place of tasks at least 10 lower
    /// (default: 50)
    #[arg(long, value_name = "N", value_parser = priority, allow_hyphen_values = true)]
    priority: Option<u32>,

    /// Slots that drains and preemption may leave without a task at once (default: 1)
    #[arg(long, value_name = "N|N%", value_parser = share, allow_hyphen_values = true)]
    max_unavailable: Option<String>,

    /// When a node is silent: replace its tasks, wait for it, or stop-after=30s: the node stops
    /// them by itself after so long, then they are replaced (default: replace)
    #[arg(long, value_name = "POLICY", value_parser = disconnect)]
    on_disconnect: Option<pb::Disconnect>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Strategy {
    Spread,
    BinPack,
}

impl Strategy {
    pub fn as_str(self) -> &'static str {
        match self {
            Strategy::Spread => "spread",
            Strategy::BinPack => "bin-pack",
        }
    }
}

fn strategy(text: &str) -> Result<String, String> {
    match text {
        "" | "spread" | "bin-pack" => Ok(text.to_owned()),
        _ => Err("use spread or bin-pack".to_owned()),
    }
}

impl Placement {
    pub fn max_per_node(&self) -> Option<u32> {
        self.replicas_max_per_node
    }

    pub fn apply(&self, spec: &mut pb::ServiceSpec) {
        put(&mut spec.priority, self.priority.map(Some));
        put(&mut spec.max_unavailable, self.max_unavailable.clone());
        put(&mut spec.disconnect, self.on_disconnect.map(Some));
        let task = spec.task.get_or_insert_default();
        put(&mut task.max_per_node, self.replicas_max_per_node);
        put(&mut task.strategy, self.placement_strategy.clone());
    }
}
