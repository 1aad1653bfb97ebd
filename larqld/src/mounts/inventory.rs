//! What of a model is here: its components, and the features and bytes of each layer.
//!
//! Taken once, when a model is opened, because plans ask for it all the time and a mixture of experts
//! has tens of thousands of tensors.

use std::collections::{HashMap, HashSet};

use larql_compute::model::{Architecture, Naming, Role, WeightKey};
use larql_planner::catalog::Component;

/// What is here.
#[derive(Debug)]
pub(super) struct Inventory {
    pub(super) layers: Vec<LayerInventory>,
    pub(super) unembedding_bytes: u64,
    /// The components that are incomplete.
    missing: HashSet<Component>,
}

/// What of one layer is here.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct LayerInventory {
    /// Features whose gates are here: all that the layer has, or none.
    pub(super) features: u64,
    /// Gate vectors, those of all experts included: what a gate scan reads.
    pub(super) gate_bytes: u64,
    /// What one position's feed-forward networks read: of experts, as many as are used.
    pub(super) ffn_bytes: u64,
    /// What attention reads.
    pub(super) attention_bytes: u64,
}

impl Inventory {
    /// Compares what a model should have with what `held` says is here, in bytes.
    pub(super) fn new(architecture: &Architecture, held: &HashMap<WeightKey, u64>) -> Self {
        let mut layers = vec![LayerInventory::default(); architecture.layers()];
        let mut routed = vec![0_u64; layers.len()];
        for (key, &bytes) in held {
            let Some(layer) = key.layer.map(|layer| layer as usize) else { continue };
            let Some(inventory) = layers.get_mut(layer) else { continue };
            if key.role == Role::Gate {
                inventory.gate_bytes += bytes;
            }
            match component(key.role) {
                Component::Attention => inventory.attention_bytes += bytes,
                Component::Gates | Component::Up | Component::Down => match key.expert {
                    Some(_) => routed[layer] += bytes,
                    None => inventory.ffn_bytes += bytes,
                },
                _ => {}
            }
        }
        for (layer, inventory) in layers.iter_mut().enumerate() {
            let description = &architecture.layer(layer).ffn;
            if let Some(experts) = &description.experts {
                let share = experts.used as f64 / experts.count.max(1) as f64;
                inventory.ffn_bytes += (routed[layer] as f64 * share) as u64;
            }
            let gates_are_here = architecture.networks(layer).iter().all(|network| {
                let layer = Some(layer as u32);
                held.contains_key(&WeightKey { role: Role::Gate, layer, expert: network.expert })
            });
            if gates_are_here {
                inventory.features = architecture.features(layer) as u64;
            }
        }
        let absent = architecture
            .tensors(Naming::Hub)
            .into_iter()
            .filter(|spec| spec.required && !held.contains_key(&spec.key));
        let mut missing: HashSet<Component> = absent.map(|spec| component(spec.key.role)).collect();
        let bytes = |role| held.get(&WeightKey::model(role)).copied();
        let tied = bytes(Role::Embedding).filter(|_| architecture.tied_embeddings);
        let unembedding = bytes(Role::Unembedding).or(tied);
        if unembedding.is_none() {
            missing.insert(Component::Unembedding);
        }
        // Browsing asks for the layers that are here; what runs the model asks for the other two
        // projections too, and those are for all layers or missing.
        if layers.iter().any(|layer| layer.features > 0) {
            missing.remove(&Component::Gates);
        }
        Self { layers, unembedding_bytes: unembedding.unwrap_or(0), missing }
    }

    /// Whether every part of a component of weights is here.
    pub(super) fn has(&self, component: Component) -> bool {
        !self.missing.contains(&component)
    }
}

/// The component of which a role's tensors are part.
fn component(role: Role) -> Component {
    match role {
        Role::Gate => Component::Gates,
        // Positions are added where attention reads: browsing knows none.
        Role::Embedding => Component::Embeddings,
        Role::Unembedding | Role::UnembeddingBias => Component::Unembedding,
        Role::Down | Role::DownBias => Component::Down,
        // What routes to experts comes with what it routes to.
        Role::Up
        | Role::UpBias
        | Role::GateBias
        | Role::Router
        | Role::RouterBias
        | Role::RouterCorrectionBias
        | Role::RouterScale
        | Role::ExpertScale
        | Role::SharedExpertGate => Component::Up,
        role if role.as_str().contains("norm") => Component::Norms,
        _ => Component::Attention,
    }
}
