"""Where answers come from: engines, the counting sampler, servers."""
