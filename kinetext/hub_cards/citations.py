"""BibTeX entries of the papers that cards cite."""

__all__ = ["DEVARAJ", "MOTED", "TEXT4VIS", "VIFI_CLIP", "XCLIP"]

XCLIP = """@inproceedings{ni2022expanding,
  title = {Expanding Language-Image Pretrained Models for General Video Recognition},
  author = {Ni, Bolin and Peng, Houwen and Chen, Minghao and Zhang, Songyang and Meng, Gaofeng and Fu, Jianlong and Xiang, Shiming and Ling, Haibin},
  booktitle = {European Conference on Computer Vision (ECCV)},
  year = {2022}
}"""  # noqa: E501 - a BibTeX field stays on one line

MOTED = """@inproceedings{moted2024,
  key = {MoTED},
  title = {Enhanced Motion-Text Alignment for Image-to-Video Transfer Learning},
  booktitle = {IEEE/CVF Conference on Computer Vision and Pattern Recognition (CVPR)},
  pages = {18504--18515},
  year = {2024}
}"""

DEVARAJ = """@article{devaraj2024diving,
  title = {Diving Deep into the Motion Representation of Video-Text Models},
  author = {Devaraj and others},
  journal = {arXiv preprint arXiv:2406.05075},
  year = {2024}
}"""

VIFI_CLIP = """@inproceedings{rasheed2023finetuned,
  title = {Fine-tuned CLIP Models are Efficient Video Learners},
  author = {Rasheed, Hanoona and Khattak, Muhammad Uzair and Maaz, Muhammad and Khan, Salman and Khan, Fahad Shahbaz},
  booktitle = {IEEE/CVF Conference on Computer Vision and Pattern Recognition (CVPR)},
  year = {2023}
}"""

TEXT4VIS = """@inproceedings{wu2023revisiting,
  title = {Revisiting Classifier: Transferring Vision-Language Models for Video Recognition},
  author = {Wu, Wenhao and Sun, Zhun and Ouyang, Wanli},
  booktitle = {AAAI Conference on Artificial Intelligence},
  year = {2023}
}"""
