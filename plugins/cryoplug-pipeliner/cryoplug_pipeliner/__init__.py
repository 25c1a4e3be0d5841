"""cryoplug in the CCP-EM Pipeliner and Doppio: jobs that denoise, train and evaluate."""
