"""How the models that ship with ImageBART in the browser were made: data, configurations, training, evaluation."""
