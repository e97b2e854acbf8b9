"""Siamese network for digits with pytorch-metric-learning.

    python siamese_pml.py mnist.npz EPOCHS SEED

Like its examples: a loss on every pair of a labelled batch, a training loop, its accuracy
calculator.
"""

import sys

import numpy as np
import torch
from pytorch_metric_learning import losses
from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

data, epochs, seed = np.load(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
x, x_test = (
    torch.from_numpy(data[name][:, None] / np.float32(255)) for name in ("x_train", "x_test")
)
y, y_test = (torch.from_numpy(data[name].astype("int64")) for name in ("y_train", "y_test"))
torch.manual_seed(seed)

model = nn.Sequential(
    nn.Conv2d(1, 16, 5),
    nn.ReLU(),
    nn.MaxPool2d(2),
    nn.Conv2d(16, 32, 5),
    nn.ReLU(),
    nn.MaxPool2d(2),
    nn.Flatten(),
    nn.Linear(512, 32),
)
loss_function = losses.ContrastiveLoss()
optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
loader = DataLoader(TensorDataset(x, y), batch_size=128, shuffle=True)
for _ in range(epochs):
    model.train()
    for images, labels in loader:
        optimizer.zero_grad()
        loss = loss_function(model(images), labels)
        loss.backward()
        optimizer.step()

model.eval()
with torch.no_grad():
    embeddings = torch.cat([model(images) for images in x_test.split(256)])
    embeddings = nn.functional.normalize(embeddings)
calculator = AccuracyCalculator(include=("precision_at_1",), k=1)
found = calculator.get_accuracy(embeddings, y_test)
print(f"recall@1 {found['precision_at_1']:.4f}")
