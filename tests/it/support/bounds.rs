//! What the daemon may hold in memory within the limit that `compose.yaml` gives it.

use sense_orchestrator::memory::MemoryBounds;

pub(crate) fn bounds() -> MemoryBounds {
    MemoryBounds::within(Some(32 << 20))
}
