"""A data set that yields given batches, for the tests of models and callbacks."""

import keras


class BatchList(keras.utils.PyDataset):
    """The batches of a list, in order."""

    def __init__(self, batches):
        super().__init__()
        self.batches = list(batches)

    def __len__(self):
        return len(self.batches)

    def __getitem__(self, index):
        return self.batches[index]
