"""3D morphable face models: Eq. (1) and (2) of Sun et al. 2018, batch first, in torch."""
