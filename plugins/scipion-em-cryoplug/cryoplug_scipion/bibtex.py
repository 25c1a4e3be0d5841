"""
@misc{Cryoplug,
    title = {cryoplug: denoise cryo-EM micrographs},
    author = {{The cryoplug authors}},
    version = {0.1.0},
    year = {2026}
}

@inproceedings{Lehtinen2018,
    title = {Noise2Noise: Learning Image Restoration without Clean Data},
    author = {Lehtinen, Jaakko and Munkberg, Jacob and Hasselgren, Jon and Laine, Samuli and Karras, Tero and Aittala, Miika and Aila, Timo},
    booktitle = {Proceedings of the 35th International Conference on Machine Learning},
    series = {PMLR},
    volume = {80},
    pages = {2965--2974},
    year = {2018},
    url = {https://proceedings.mlr.press/v80/lehtinen18a.html}
}
"""
