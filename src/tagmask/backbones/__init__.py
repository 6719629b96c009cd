"""Networks that turn an image into features: timm, WideResNet-38, VGG16, Inception v3, and the neck behind them."""
