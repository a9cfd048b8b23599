"""The OpenAPI and the AsyncAPI document, made from the routes and the declarations of the resources."""
