"""Random weights as the authors of each model draw them, and the vocabulary of a model made for some genes."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from plumbline.models.cellplm import untrained as cellplm_untrained
from plumbline.models.geneformer import untrained as geneformer_untrained
from plumbline.models.geneformer.network import rename
from plumbline.models.scgpt import untrained as scgpt_untrained
from plumbline.models.shared.untrained import vocabulary
from plumbline.models.uce import untrained as uce_untrained


def test_scgpt_starts_as_its_authors_start_it():
    torch.manual_seed(0)
    tensors = scgpt_untrained.start(scgpt_untrained.TINY, 1000).state_dict()
    vectors = tensors["encoder.embedding.weight"]
    assert 0.099 < vectors.abs().max() <= 0.1
    assert vectors.std() == pytest.approx(0.2 / 12**0.5, rel=0.02)  # of a uniform distribution
    attention = tensors["transformer_encoder.layers.0.self_attn.in_proj_weight"]
    assert attention.std() == pytest.approx((2 / (64 + 192)) ** 0.5, rel=0.03)  # Glorot and Bengio 2010, eq. 16


def test_geneformer_starts_as_bert_under_berts_names():
    torch.manual_seed(0)
    model = geneformer_untrained.start(geneformer_untrained.TINY, 1000)
    tensors = geneformer_untrained.to_bert(model, 3)
    assert tensors["bert.encoder.layer.1.intermediate.dense.weight"].std() == pytest.approx(0.02, rel=0.03)
    assert not tensors["bert.embeddings.word_embeddings.weight"][0].any()
    assert (tensors["bert.encoder.layer.2.output.LayerNorm.weight"] == 1).all()
    back = rename(tensors, 3)
    assert back.keys() == model.state_dict().keys()
    assert all(torch.equal(back[name], tensor) for name, tensor in model.state_dict().items())


def test_uce_has_sines_as_positions_and_cellplm_small_gene_vectors():
    torch.manual_seed(0)
    pe = uce_untrained.start(uce_untrained.TINY, 500).pos_encoder.pe
    assert pe.shape == (1536, 1, 80)
    second = 7 / 10000 ** (2 / 80)  # Vaswani et al. 2017, section 3.5
    np.testing.assert_allclose(pe[7, 0, :4], [np.sin(7), np.cos(7), np.sin(second), np.cos(second)], atol=1e-5)
    config = cellplm_untrained.CONFIG | {"enc_hid": 64, "enc_layers": 1, "post_latent_dim": 8, "gene_list": ["G"] * 500}
    vectors = cellplm_untrained.start(config).embedder.feat_enc.emb.detach()
    assert vectors.std() == pytest.approx(0.005, rel=0.03)


def test_vocabulary_is_sorted_and_has_each_name_once():
    assert vocabulary(np.array(["b", "", "a", "b"])) == ["a", "b"]
