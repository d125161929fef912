"""The photographs of flowers, fruit and vegetables: where they come from and how a model of them is trained."""
